"""Importers are found, read and told of by file and line; in development they are read again."""

from __future__ import annotations

import os
import re
from datetime import date
from pathlib import Path

import pytest

from app.errors import NotFound
from app.importers import BrokenImporters, Column, Importer, Reference, Registry, value_of
from app.models.imports import MODES

GOOD_TOML = """\
title = "Parts"
description = "Parts of machines"
group = "Ours"
source = "demo"
roles = ["admin"]
table = "stock.parts"
natural_key = ["number"]
modes = ["upsert", "skip"]

[columns.number]
type = "text"
label = "Part number"
aliases = ["no", "part"]
required = true
max_length = 20
pattern = "[A-Z]+-[0-9]+"

[columns.machine_id]
references = { table = "machines", key = "name", value = "id" }

[columns.status]
choices = ["new", "used"]
default = "new"

[columns.price]
type = "decimal"
min = 0.01
max = 1_000_000

[columns.built_on]
type = "date"
max = 2030-12-31
unique = true
"""

GOOD_PYTHON = """\
from app.importers import Column, Importer


class Ours(Importer):
    title = "Ours"
    table = "ours"
    columns = [Column(name="id", type="int", required=True)]
    natural_key = ["id"]

    def row(self, row):
        return row
"""


def loaded(folder: Path, name: str, text: str) -> Registry:
    (folder / name).write_text(text, encoding="utf-8")
    return Registry.load(str(folder))


def problems(folder: Path, name: str, text: str) -> list[str]:
    """line: message, of the one file in a folder of its own."""
    found = loaded(folder, name, text).problems
    assert all(problem.path == folder / name for problem in found)
    return [f"{problem.line}: {problem.message}" for problem in found]


def test_the_built_in_ones_are_there_and_good():
    registry = Registry.load()
    assert registry.problems == ()
    assert {importer.key for importer in registry} == {"invoices", "members", "tasks"}
    assert [importer.key for importer in registry.for_user(["member"])] == ["invoices", "members", "tasks"]


def test_without_the_demo_there_are_none():
    registry = Registry.load(sources=["warehouse"])
    assert (len(registry), registry.problems) == (0, ())


def test_a_toml_file_is_an_importer(tmp_path):
    importer = loaded(tmp_path, "parts.toml", GOOD_TOML).get("parts")
    assert (importer.title, importer.group, importer.roles) == ("Parts", "Ours", ("admin",))
    assert (importer.table, importer.natural_key, importer.modes) == (
        "stock.parts",
        ("number",),
        ("upsert", "skip"),
    )
    assert [column.name for column in importer.columns] == [
        "number",
        "machine_id",
        "status",
        "price",
        "built_on",
    ]
    assert importer.column("number") == Column(
        name="number",
        label="Part number",
        aliases=("no", "part"),
        required=True,
        max_length=20,
        pattern="[A-Z]+-[0-9]+",
    )
    assert importer.column("machine_id").references == Reference("machines", "name")
    assert importer.column("built_on").max == date(2030, 12, 31)
    assert (importer.path, len(importer.fingerprint)) == (tmp_path / "parts.toml", 64)
    assert (importer.allows({"admin"}), importer.allows({"member"})) == (True, False)


def test_a_python_file_is_an_importer(tmp_path):
    importer = loaded(tmp_path, "ours.py", GOOD_PYTHON).get("ours")
    assert importer.natural_key == ("id",)
    assert importer.row({"id": 1}) == {"id": 1}
    assert importer.line == 4
    assert repr(importer) == "<Ours ours>"


def test_an_unknown_importer_is_not_found_but_the_nearest_is_named():
    with pytest.raises(NotFound, match="There is no importer 'taks'"):
        Registry.load().get("taks")


@pytest.mark.parametrize(
    ("line", "instead", "problem"),
    [
        ('title = "Parts"', "", "1: the importer has no title; say for instance"),
        ('title = "Parts"', "title = 3", "1: title must be a text"),
        ('title = "Parts"', 'titel = "x"', "1: titel is no option of an importer. Did you mean title?"),
        ('title = "Parts"', "title = ", "1: the file is not good TOML"),
        ('source = "demo"', 'source = "dmeo"', "4: there is no source 'dmeo'; set SOURCE_DMEO_URL."),
        ('roles = ["admin"]', 'roles = ["boss"]', "5: there is no role 'boss'"),
        ('roles = ["admin"]', "roles = []", "5: roles must be a list of names"),
        ('table = "stock.parts"', "", "1: the importer has no table"),
        (
            'table = "stock.parts"',
            'table = "a.b.c"',
            '6: table is \'a.b.c\'; write "table" or "schema.table"',
        ),
        (
            '["number"]',
            '["nubmer"]',
            "7: natural_key names 'nubmer', which is none of the columns. Did you mean number?",
        ),
        ('["number"]', '["status"]', "column status: it is in the natural key, so it must be required"),
        ('["number"]', "[]", "8: without a natural_key rows can only be inserted"),
        (
            '["upsert", "skip"]',
            '["merge"]',
            "8: modes must be a list of some of: insert, upsert, update, skip",
        ),
        ('type = "text"', 'type = "txt"', "11: column number: there is no type 'txt'. Did you mean text?"),
        ("required = true", 'required = "yes"', "14: column number: required must be true or false"),
        (
            "required = true",
            "requird = true",
            "14: column number: requird is no option of a column. Did you mean",
        ),
        ("max_length = 20", "max_length = 0", "15: column number: max_length must be a whole number from 1"),
        ('"[A-Z]+-[0-9]+"', '"[A-Z"', "16: column number: pattern is no regular expression: "),
        ('"[A-Z]+-[0-9]+"', '"(?=x)"', "16: column number: pattern is no regular expression of RE2"),
        ('"[A-Z]+-[0-9]+"', "'(a)\\1'", "16: column number: pattern is no regular expression of RE2"),
        ('aliases = ["no", "part"]', 'aliases = "no"', "13: column number: aliases must be a list of texts"),
        (
            '{ table = "machines", key = "name", value = "id" }',
            '"x"',
            "19: column machine_id: references must be",
        ),
        ('key = "name"', "ky = 1", "19: column machine_id: references must be { table = "),
        (
            'default = "new"',
            'default = "old"',
            "23: column status: default is 'old', which is none of the choices",
        ),
        ('default = "new"', "default = 1", "23: column status: default fits no column of this type"),
        ("min = 0.01", 'min = "x"', "27: column price: min fits no column of this type: 'x' is no number"),
        ("max = 1_000_000", "max = 0", "28: column price: max is 0, less than min, which is 0.01"),
        (
            "max = 2030-12-31",
            "max_length = 3",
            "32: column built_on: max_length is for columns of the type text",
        ),
        (
            'choices = ["new", "used"]',
            "min = 1",
            "22: column status: min is for columns of the types int, decimal",
        ),
        ("[columns.status]", "[columns.line]", "21: column line: no column can be called so"),
    ],
)
def test_a_mistake_in_toml_is_told_with_its_line(tmp_path, line, instead, problem):
    assert line in GOOD_TOML
    found = problems(tmp_path, "parts.toml", GOOD_TOML.replace(line, instead))
    assert any(problem in text for text in found), found


@pytest.mark.parametrize(
    ("line", "instead", "problem"),
    [
        ('    title = "Ours"', "", "4: the importer has no title"),
        ('title = "Ours"', 'titel = "Ours"', "5: titel is no option of an importer. Did you mean title?"),
        ("def row(", "def roow(", None),
        ("    def row(self, row):\n        return row\n", "    row = 3\n", "10: row must be a method"),
        ("class Ours(Importer)", "class Ours", "1: the file has no subclass of Importer; it must have one"),
        ('[Column(name="id", type="int", required=True)]', "()", "7: the importer has no columns"),
        ('[Column(name="id", type="int", required=True)]', '["id"]', "7: the importer has no columns"),
        (
            "required=True)]",
            'required=True), Column(name="id")]',
            "7: column id is there twice",
        ),
        ("        return row", "        retrun row", "11: not good Python"),
        ('table = "ours"', "table = 1 / 0", "6: the file fails when it is loaded: ZeroDivisionError"),
        ('natural_key = ["id"]', "natural_key = 3", "8: natural_key must be a list of columns"),
    ],
)
def test_a_mistake_in_python_is_told_with_its_line(tmp_path, line, instead, problem):
    assert line in GOOD_PYTHON
    found = problems(tmp_path, "ours.py", GOOD_PYTHON.replace(line, instead))
    assert any(problem in text for text in found) if problem else found == [], found


def test_all_problems_are_told_at_once_and_stop_a_start(tmp_path):
    (tmp_path / "a.toml").write_text("titel = 'x'\ntabel = 'y'\n")
    registry = loaded(tmp_path, "b.py", "x = 1\n")
    with pytest.raises(BrokenImporters) as caught:
        registry.check()
    assert len(caught.value.problems) == 3
    assert caught.value.message.startswith("These importers must be mended:\n")
    assert f"{tmp_path / 'a.toml'}:1: titel is no option" in caught.value.message


def test_a_key_can_be_had_once(tmp_path):
    assert problems(tmp_path, "tasks.toml", GOOD_TOML)[0].startswith("1: the key tasks is taken by ")


def test_a_changed_file_is_read_again(tmp_path):
    registry = loaded(tmp_path, "parts.toml", GOOD_TOML)
    assert not registry.refresh()
    (tmp_path / "parts.toml").write_text(GOOD_TOML.replace('"Parts"', '"Spare parts"'))
    os.utime(tmp_path / "parts.toml", (1, 1))
    assert registry.refresh()
    assert registry.get("parts").title == "Spare parts"
    (tmp_path / "parts.toml").unlink()
    assert registry.refresh()
    assert "parts" not in registry


@pytest.mark.parametrize(
    ("type", "raw"),
    [
        *(("int", True), ("int", "1"), ("int", 1.0), ("decimal", "NaN"), ("decimal", "x"), ("decimal", True)),
        *(("bool", 1), ("text", 1), ("date", "31.1.2026"), ("datetime", "soon"), ("uuid", "x"), ("json", {})),
    ],
)
def test_values_of_other_types_are_none(type, raw):
    with pytest.raises(ValueError, match=re.escape(repr(raw)) + "|formed|Invalid"):
        value_of(type, raw)


def test_the_modes_are_those_of_imports():
    assert set(Importer.modes) == set(MODES)
