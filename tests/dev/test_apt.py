"""Programs of the system: those there are, those that are installed, and what is said when neither works."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from app.dev import apt, chromium, mariadb, spreadsheets
from app.settings import ROOT


def program(path: Path, text: str = "") -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """Looks for `loom` on a PATH of its own, as root on Debian."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin")
    monkeypatch.delenv("LOOM", raising=False)
    monkeypatch.setattr(apt, "DEBIAN", program(tmp_path / "debian_version"))
    monkeypatch.setattr(apt, "LOCK", tmp_path / "lock")
    monkeypatch.setattr(os, "geteuid", lambda: 0)

    def find() -> Path:
        found = shutil.which("loom")
        if found is None:
            raise spreadsheets.NoSpreadsheet("There is no loom.")
        return Path(found)

    return find


def test_what_is_there_is_taken(tmp_path: Path, find: Callable[[], Path]) -> None:
    loom = program(tmp_path / "loom")
    program(tmp_path / "apt-get", "exit 1")
    assert apt.find_or_install(find, "weaving", "LOOM") == loom


def test_what_is_missing_is_installed(tmp_path: Path, find: Callable[[], Path]) -> None:
    told = tmp_path / "told"
    script = f'echo "$@" >> {told}; case "$*" in *install*) cp "$0" {tmp_path}/loom;; esac'
    program(tmp_path / "apt-get", script)
    assert apt.find_or_install(find, "weaving", "LOOM") == tmp_path / "loom"
    assert told.read_text().splitlines() == [
        "--quiet update",
        "--quiet install --yes --no-install-recommends weaving",
    ]


def test_a_failure_says_what_failed_and_what_to_do(tmp_path: Path, find: Callable[[], Path]) -> None:
    program(tmp_path / "apt-get", "exit 100")
    with pytest.raises(spreadsheets.NoSpreadsheet, match=r"apt-get update. failed; set LOOM"):
        apt.find_or_install(find, "weaving", "LOOM")


@pytest.mark.parametrize("why", ["named", "not root", "not Debian"])
def test_nothing_is_installed_where_we_may_not(
    why: str, tmp_path: Path, find: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "apt-get", f"cp $0 {tmp_path}/loom")
    if why == "named":
        monkeypatch.setenv("LOOM", "/nowhere/loom")
    elif why == "not root":
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
    else:
        monkeypatch.setattr(apt, "DEBIAN", tmp_path / "nothing")
    with pytest.raises(spreadsheets.NoSpreadsheet, match="There is no loom"):
        apt.find_or_install(find, "weaving", "LOOM")


# How each is looked for, the variable that names it, its name on PATH, and the package that brings it.
PROGRAMS = {
    "Chromium": (chromium.find, "CHROMIUM", "chromium", ""),
    "MariaDB": (mariadb.find, "MARIADBD", "mariadbd", "mariadb-server"),
    "LibreOffice": (spreadsheets.find_libreoffice, "SOFFICE", "soffice", "libreoffice-calc-nogui"),
    "Gnumeric": (spreadsheets.find_gnumeric, "SSCONVERT", "ssconvert", "gnumeric"),
}
Look = tuple[Callable[[], Path], str, str, str]


@pytest.fixture(params=PROGRAMS)
def look(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Look:
    """One of these, and nothing on PATH nor named."""
    found = PROGRAMS[request.param]
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(found[1], raising=False)
    monkeypatch.setattr(mariadb, "SYSTEM", str(tmp_path))
    return found


def test_the_named_one_comes_before_that_on_path(
    look: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find, variable, name, _ = look
    on_path, named = program(tmp_path / name), program(tmp_path / "mine")
    assert find() == on_path
    monkeypatch.setenv(variable, str(named))
    assert find() == named


def test_a_named_one_that_is_not_there_is_no_reason_to_take_another(
    look: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find, variable, name, package = look
    program(tmp_path / name)
    monkeypatch.setenv(variable, str(tmp_path / "nothing"))
    with pytest.raises(apt.Missing, match=variable):
        apt.find_or_install(find, package, variable)


@pytest.mark.parametrize("look", sorted(PROGRAMS.keys() - {"Chromium"}), indirect=True)
def test_none_at_all_says_what_to_do(look: Look) -> None:
    find, variable, _, package = look
    with pytest.raises(apt.Missing, match=rf"Set {variable} .* `apt-get install {package}`"):
        find()


def test_no_chromium_at_all_says_what_to_do(tmp_path: Path) -> None:
    """In a process of its own, as Playwright may be at work in this one."""
    done = subprocess.run(
        [sys.executable, "-c", "from app.dev import chromium; chromium.find()"],
        cwd=ROOT,
        env={"PATH": str(tmp_path), "PLAYWRIGHT_BROWSERS_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "NoBrowser: The browser tests need Chromium and found none. Set CHROMIUM to" in done.stderr
    assert "playwright install chromium" in done.stderr
