"""Finds a Chromium for the browser tests; `python -m app.dev.chromium` installs one where it may."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from app.dev import apt

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class NoBrowser(apt.Missing):
    """There is no Chromium on this machine."""

    code = "no_browser"


def find() -> Path:
    """The path of a Chromium: `CHROMIUM`, then PATH, then Playwright's own; raises NoBrowser."""
    named = os.environ.get("CHROMIUM")
    if named:
        return _named(named)
    for name in NAMES:
        found = shutil.which(name)
        if found:
            return Path(found)
    own = _playwrights_own()
    if own.exists():
        return own
    raise NoBrowser(
        "The browser tests need Chromium and found none. Set CHROMIUM to its path, put it on PATH, "
        "or install one: `.venv/bin/playwright install chromium`."
    )


def find_or_install() -> Path:
    """As `find`, but as root on Debian it installs the distribution's own when there is none."""
    return apt.find_or_install(find, "chromium", "CHROMIUM")


def _named(path: str) -> Path:
    found = shutil.which(path)
    if found is None:
        raise NoBrowser(f"CHROMIUM is {path!r}, but there is no program of that name.")
    return Path(found)


def _playwrights_own() -> Path:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        return Path(playwright.chromium.executable_path)


if __name__ == "__main__":
    try:
        print(find_or_install())
    except NoBrowser as error:
        raise SystemExit(str(error)) from None
