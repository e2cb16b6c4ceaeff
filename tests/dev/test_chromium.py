"""Which browser the browser tests take."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from app.dev import chromium
from app.settings import ROOT


def program(path: Path) -> Path:
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_the_named_one_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named, on_path = program(tmp_path / "mine"), program(tmp_path / "chromium")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CHROMIUM", raising=False)
    assert chromium.find() == on_path
    monkeypatch.setenv("CHROMIUM", str(named))
    assert chromium.find() == named


def test_a_named_one_that_is_not_there_is_no_reason_to_take_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHROMIUM", str(tmp_path / "nothing"))
    with pytest.raises(chromium.NoBrowser, match=r"CHROMIUM is .*nothing"):
        chromium.find_or_install()


def test_none_at_all_says_what_to_do(tmp_path: Path) -> None:
    """In a process of its own, as Playwright may be at work in this one."""
    done = subprocess.run(
        [sys.executable, "-c", "from app.dev import chromium; chromium.find()"],
        cwd=ROOT,
        env={"PATH": str(tmp_path), "PLAYWRIGHT_BROWSERS_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "NoBrowser: The browser tests need Chromium and found none." in done.stderr
    assert "playwright install chromium" in done.stderr
