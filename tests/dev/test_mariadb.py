"""Which MariaDB the tests of the MySQL source take."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.dev import mariadb


def program(path: Path) -> Path:
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_the_named_one_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named, on_path = program(tmp_path / "mine"), program(tmp_path / "mariadbd")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("MARIADBD", raising=False)
    assert mariadb.find() == on_path
    monkeypatch.setenv("MARIADBD", str(named))
    assert mariadb.find() == named


def test_a_named_one_that_is_not_there_is_no_reason_to_take_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MARIADBD", str(tmp_path / "nothing"))
    with pytest.raises(mariadb.NoMariaDb, match="MARIADBD"):
        mariadb.find_or_install()


def test_none_at_all_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(mariadb, "SYSTEM", str(tmp_path))
    monkeypatch.delenv("MARIADBD", raising=False)
    with pytest.raises(mariadb.NoMariaDb, match="apt-get install mariadb-server"):
        mariadb.find()
