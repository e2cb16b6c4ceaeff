"""Programs of the system: those there are, those that are installed, and what is said when neither works."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from app.dev import apt, spreadsheets


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


@pytest.mark.parametrize(
    ("look", "variable", "package"),
    [
        (spreadsheets.find_libreoffice, "SOFFICE", "libreoffice-calc-nogui"),
        (spreadsheets.find_gnumeric, "SSCONVERT", "gnumeric"),
    ],
)
def test_spreadsheets_are_named_or_on_path(
    look: Callable[[], Path], variable: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(variable, raising=False)
    with pytest.raises(spreadsheets.NoSpreadsheet, match=f"Set {variable} .* `apt-get install {package}`"):
        look()
    on_path, named = program(tmp_path / variable.lower()), program(tmp_path / "mine")
    assert look() == on_path
    monkeypatch.setenv(variable, str(named))
    assert look() == named
