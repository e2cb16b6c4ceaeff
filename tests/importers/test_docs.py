"""docs/author.md tells of everything an importer's author may write, and its examples work."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from app.importers import Column, Importer, Reference, Registry
from app.imports.file import check, parse
from app.imports.file.dialect import Dialect
from app.imports.file.typed import TYPES

TEXT = (Path(__file__).parents[2] / "docs" / "author.md").read_text(encoding="utf-8")
CHAPTER = TEXT.partition("# Adding an importer")[2]


def table(title: str) -> str:
    section = CHAPTER.partition(f"## {title}\n")[2].partition("\n## ")[0]
    return "\n".join(line for line in section.splitlines() if line.startswith("|"))


def named(option: str, rows: str) -> bool:
    return re.search(rf"^\|[^|]*`{option}`[^|]*\|", rows, re.MULTILINE) is not None


@pytest.mark.parametrize("option", Importer.OPTIONS)
def test_every_option_of_an_importer_is_documented(option):
    assert named(option, table("Options of an importer"))


@pytest.mark.parametrize("option", [field.name for field in fields(Column)])
def test_every_option_of_a_column_is_documented(option):
    assert named(option, table("Options of a column of an importer"))


@pytest.mark.parametrize("option", [field.name for field in fields(Reference)])
def test_every_option_of_a_reference_is_documented(option):
    assert f"{option} = " in table("Options of a column of an importer")


def test_nothing_else_is_documented():
    options = re.findall(r"^\| `(\w+)`", table("Options of an importer"), re.MULTILINE)
    assert options == list(Importer.OPTIONS)


@pytest.mark.parametrize("type", TYPES)
def test_every_type_is_documented(type):
    assert named(type, table("Options of a column of an importer"))


def test_every_default_is_documented_as_it_is():
    rows = table("Options of an importer")
    for option in ("group", "source"):
        assert f'| `{option}` | `"{getattr(Importer, option)}"` |' in rows
    modes = ", ".join(f'"{mode}"' for mode in Importer.modes)
    assert f"| `modes` | `[{modes}]` |" in rows


def test_every_code_of_a_refused_row_is_documented():
    codes = {
        *parse.UNREADABLE,
        *(check.EMPTY, check.WRONG_TYPE, check.NO_CHOICE, check.TOO_SMALL, check.TOO_LARGE),
        *(check.TOO_LONG, check.PATTERN, check.TWICE),
    }
    rows = table("What is refused")
    assert {code for code in codes if not named(code, rows)} == set()


@pytest.mark.parametrize(("language", "name"), [("toml", "machines.toml"), ("python", "machines.py")])
def test_the_examples_work(tmp_path, language, name):
    found = re.search(rf"```{language}\n(.*?)```", CHAPTER, re.DOTALL)
    assert found
    (tmp_path / name).write_text(found[1])
    registry = Registry.load(str(tmp_path))
    assert registry.problems == ()
    assert registry.get("machines").table == "machines"


def test_the_example_s_hooks_do_what_they_say(tmp_path):
    found = re.search(r"```python\n(.*?)```", CHAPTER, re.DOTALL)
    assert found
    (tmp_path / "machines.py").write_text(found[1])
    importer = Registry.load(str(tmp_path)).get("machines")
    places: dict[str, int | None] = {"number": 0, "company_id": 1, "bought_on": 2, "sold_on": 3}
    text = b"m-1,A,2026-01-31,2026-02-01\nm-2,A,2026-01-31,2026-01-01\nX-3,A,,\n"
    checked = check.Checker(importer, Dialect(), places, 4).check(text, 2)
    assert [row["number"] for row in checked.rows.to_pylist()] == ["M-1"]
    assert [(reject.line, reject.code) for reject in checked.rejects] == [(3, "sold_too_early"), (4, "scrap")]
