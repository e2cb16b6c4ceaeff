from __future__ import annotations

import os
import sys
from datetime import date
from pathlib import Path

import pytest

from app.errors import NotFound
from app.params import Choice
from app.reports import BrokenReports, Bundle, Column, Registry, SqlReport

GOOD_SQL = """\
/*
title = "Tasks by project"
description = "Every task"
group = "Ours"
source = "demo"
roles = ["admin"]
queue = "low"
link = "signed-in"
partition_by = "id"
filename = "tasks of {date}"

[columns]
id = "The number"

[params.since]
type = "date"
label = "Created since"
required = true
default = 2026-01-01

[params.status]
type = "enum"
choices = ["open", { value = "done", label = "Finished" }]

[params.amount]
type = "decimal"
min = 0.1
*/
SELECT id FROM tasks
WHERE created_at >= :since AND (:status IS NULL OR status = :status) AND :amount > 0
"""

GOOD_PYTHON = """\
from app.reports import Column, Param, Params, Report


class Ours(Report):
    title = "Ours"
    params = Params([Param("count", "int", default=1)])
    columns = (Column("number"),)

    def rows(self, params, context):
        yield from ((number,) for number in range(params["count"]))
"""


@pytest.fixture
def folder(tmp_path):
    """A folder of an author's own."""
    return tmp_path


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def load(folder: Path, **known) -> Registry:
    return Registry.load(str(folder), **known)


def problems(folder: Path, name: str, text: str) -> list[str]:
    write(folder, name, text)
    return [str(problem).replace(f"{folder}/", "") for problem in load(folder).problems]


def head(toml: str, sql: str = "SELECT 1") -> str:
    return f'/*\ntitle = "X"\n{toml}\n*/\n{sql}\n'


def test_the_built_in_reports_are_good():
    registry = Registry.load()
    registry.check()
    assert {report.key for report in registry} == {
        *("all_tasks", "campaign_export", "company_stats", "late_invoices", "lookup_members"),
        *("members", "my_tasks", "slow_tasks"),
    }
    for report in registry:
        assert report.description
        assert (report.columns is None) == isinstance(report, Bundle)
        assert all(column.description for column in report.columns or ())


def test_reports_over_the_demo_are_left_out_without_it():
    registry = Registry.load(sources=["warehouse"])
    assert not len(registry)
    assert not registry.problems


def test_a_sql_file_is_a_report(folder):
    path = write(folder, "ours.sql", GOOD_SQL)
    report = load(folder).get("ours")
    assert isinstance(report, SqlReport)
    assert (report.title, report.description, report.group) == ("Tasks by project", "Every task", "Ours")
    assert (report.roles, report.queue, report.link) == (("admin",), "low", "signed-in")
    assert (report.partition_by, report.path, report.line) == ("id", path, 1)
    assert report.columns == (Column("id", "The number"),)
    assert report.params.names == ["since", "status", "amount"]
    assert report.params[0].default == date(2026, 1, 1)
    assert report.params[1].choices == (Choice("open", "open"), Choice("done", "Finished"))
    assert report.sql.startswith("SELECT id FROM tasks\nWHERE")
    assert report.filename_on(date(2026, 1, 31)) == "tasks of 2026-01-31"
    assert report.allows(["admin"])
    assert not report.allows(["member"])


def test_a_python_file_is_a_report(folder):
    write(folder, "ours.py", GOOD_PYTHON)
    report = load(folder).get("ours")
    assert report.title == "Ours"
    assert report.line == 4
    assert list(report.rows({"count": 2}, context=None)) == [(0,), (1,)]  # type: ignore[arg-type]
    assert report.filename_on(date(2026, 1, 31)) == "ours-2026-01-31"


def test_a_report_in_python_may_be_written_with_lists(folder):
    text = GOOD_PYTHON.replace('(Column("number"),)', '[Column("number")]').replace(
        'title = "Ours"', 'title = "Ours"\n    roles = ["admin"]\n    key = "own-key"'
    )
    write(folder, "ours.py", text)
    registry = load(folder)
    registry.check()
    assert registry.get("own-key").roles == ("admin",)
    assert registry.get("own-key").columns == (Column("number"),)


def test_files_may_have_a_byte_order_mark_and_windows_line_ends(folder):
    (folder / "ours.sql").write_bytes(b"\xef\xbb\xbf" + GOOD_SQL.replace("\n", "\r\n").encode())
    load(folder).check()


def test_hidden_and_shared_files_are_no_reports(folder):
    write(folder, "_shared.py", "raise SystemExit")
    write(folder, ".ours.sql", "nothing")
    write(folder, "notes.txt", "nothing")
    load(folder).check()


def test_several_folders_are_read(folder):
    for name in ("one", "two"):
        (folder / name).mkdir()
        write(folder / name, f"{name}.sql", head(""))
    registry = Registry.load(os.pathsep.join([str(folder / "one"), "", str(folder / "two")]))
    assert "one" in registry
    assert "two" in registry


def test_a_folder_that_is_not_there_is_a_problem(folder):
    assert [p.message for p in load(folder / "gone").problems] == [
        "REPORTS_PATH names this folder, but there is none"
    ]


SQL_PROBLEMS = {
    "no head": ("SELECT 1", "x.sql:1: the file must begin with /* the report's options in TOML */"),
    "bad toml": (
        '/*\ntitle = "X"\nroles = [member]\n*/\nSELECT 1',
        "x.sql:3: the head is not good TOML: Invalid value",
    ),
    "unclosed toml": (
        '/* title = "X\n*/ SELECT 1',
        "x.sql:1: the head is not good TOML: Illegal character '\\n'",
    ),
    "no title": ("/* */ SELECT 1", "x.sql:1: the report has no title"),
    "title of a wrong type": ("/*\ntitle = 5\n*/\nSELECT 1", "x.sql:2: title must be a text"),
    "unknown option": (
        head('sourec = "demo"'),
        "x.sql:3: sourec is no option of a report. Did you mean source?",
    ),
    "unknown table": (head("\n[parms.x]"), "x.sql:4: parms is no option of a report. Did you mean params?"),
    "unknown source": (
        head('source = "dmeo"'),
        "x.sql:3: there is no source 'dmeo'; set SOURCE_DMEO_URL. Did you mean demo?",
    ),
    "source of a wrong type": (head("source = 5"), "x.sql:3: source must be a text"),
    "unknown role": (head('roles = ["adnim"]'), "x.sql:3: there is no role 'adnim'. Did you mean admin?"),
    "no roles": (head("roles = []"), "x.sql:3: roles must be a list of names"),
    "roles of a wrong type": (head('roles = "admin"'), "x.sql:3: roles must be a list of names"),
    "unknown queue": (head('queue = "fast"'), "x.sql:3: queue is 'fast'; use 'default', or 'low'"),
    "unknown link": (head('link = "open"'), "x.sql:3: link is 'open'; use 'signed' or 'signed-in'"),
    "partition": (head('partition_by = "a, b"'), "x.sql:3: partition_by must be the name of one column"),
    "filename": (head('filename = "../x"'), "x.sql:3: filename must have 1 to 150 characters and no slash"),
    "columns": (head('columns = ["id"]'), "x.sql:3: columns must be a table"),
    "columns without words": (head("[columns]\nid = 5"), "x.sql:3: columns must be a table"),
    "params no table": (head("params = 5"), "x.sql:3: params must be tables"),
    "unused param": (
        head('\n[params.since]\ntype = "date"'),
        "x.sql:4: param since is never used; write :since",
    ),
    "unused param in line": (head('[params]\na = {type="int"}'), "x.sql:4: param a is never used; write :a"),
    "dotted param": (head('params.a = {type="int"}'), "x.sql:3: param a is never used; write :a"),
    "undeclared placeholder": (
        head("[params.since]", "SELECT :since,\n  :sinse"),
        "x.sql:6: :sinse is not declared; add [params.sinse] to the head. Did you mean since?",
    ),
    "unknown param option": (
        head('[params.a]\ntype = "int"\nmaxi = 5', "SELECT :a"),
        "x.sql:5: param a: maxi is no option of a param. Did you mean max?",
    ),
    "unknown param type": (
        head('[params.a]\ntype = "integer"', "SELECT :a"),
        "x.sql:3: param a: there is no type 'integer'. Did you mean int?",
    ),
    "param option of a wrong type": (
        head('[params.a]\nrequired = "yes"', "SELECT :a"),
        "x.sql:4: param a: required must be true or false",
    ),
    "param label of a wrong type": (
        head("[params.a]\nlabel = 5", "SELECT :a"),
        "x.sql:4: param a: label must be a text",
    ),
    "wrong default": (
        head('[params.a]\ntype = "int"\ndefault = "five"', "SELECT :a"),
        "x.sql:3: param a: the default 'five' is wrong: Enter a whole number",
    ),
    "default of no shape": (
        head('[params.a]\ntype = "int"\ndefault = {x = 1}', "SELECT :a"),
        "x.sql:3: param a: the default {'x': 1} is wrong: Enter a whole number",
    ),
    "default that is no choice": (
        head('[params.a]\ntype = "enum"\nchoices = ["x"]\ndefault = "y"', "SELECT :a"),
        "x.sql:3: param a: the default 'y' is wrong: Choose one of: x.",
    ),
    "wrong choices": (
        head('[params.a]\ntype = "enum"\nchoices = [{label = "x"}]', "SELECT :a"),
        "x.sql:3: param a: choices must be different from each other and not empty",
    ),
    "unsafe": (head("", "SELECT 1;\nDROP TABLE x"), "x.sql:5: there is more than one statement"),
    "writing": (head("", "\nDELETE FROM x"), "x.sql:6: the query begins with DELETE"),
    "no query": (head("", "-- nothing"), "x.sql:4: there is no query"),
    "never ends": (head("", "SELECT\n'x"), "x.sql:6: this string never ends"),
    "key": (head(""), "X.sql:1: the key 'X' must be made of lower-case letters"),
}


@pytest.mark.parametrize("case", SQL_PROBLEMS)
def test_a_problem_of_a_sql_file_has_its_line(folder, case):
    text, expected = SQL_PROBLEMS[case]
    found = problems(folder, expected.partition(":")[0], text)
    assert found
    assert [line for line in found if line.startswith(expected)], found


PYTHON_PROBLEMS = {
    "syntax": (GOOD_PYTHON.replace("class Ours(Report):", "class Ours(Report)"), "x.py:4: not good Python: "),
    "import": (
        GOOD_PYTHON.replace("class", "import waybill_gone\n\nclass"),
        "x.py:4: the file fails when it is",
    ),
    "deep": (
        GOOD_PYTHON.replace("class", "import json\njson.loads('x')\n\nclass"),
        "x.py:5: the file fails when it is loaded: JSONDecodeError",
    ),
    "none": ("x = 1", "x.py:1: the file has no subclass of Report; it must have one"),
    "two": (
        GOOD_PYTHON + GOOD_PYTHON.replace("Ours", "Others"),
        "x.py:1: the file has 2 subclasses of Report",
    ),
    "no title": (GOOD_PYTHON.replace("title =", "_title ="), "x.py:4: the report has no title"),
    "misspelt": (
        GOOD_PYTHON.replace("title =", "titel ="),
        "x.py:5: titel is no option of a report. Did you mean title?",
    ),
    "no rows": (
        GOOD_PYTHON.replace("def rows", "def lines"),
        "x.py:4: the report has no rows(self, params, context)",
    ),
    "no columns": (GOOD_PYTHON.replace("columns =", "cells ="), "x.py:4: columns must be a tuple of Column"),
    "columns": (GOOD_PYTHON.replace('(Column("number"),)', '("number",)'), "x.py:7: columns must be a tuple"),
    "params": (
        GOOD_PYTHON.replace('Params([Param("count", "int", default=1)])', '["count"]'),
        "x.py:6: params must",
    ),
    "no params": (
        GOOD_PYTHON.replace('Params([Param("count", "int", default=1)])', "5"),
        "x.py:4: the report cannot",
    ),
    "param": (
        GOOD_PYTHON.replace('"int"', '"itn"'),
        "x.py:6: param count: there is no type 'itn'. Did you mean int?",
    ),
    "twice": (
        GOOD_PYTHON.replace('Param("count", "int", default=1)', 'Param("count"), Param("count")'),
        "x.py:6: param count is there twice",
    ),
    "role": (
        GOOD_PYTHON.replace("title =", 'roles = ("root",)\n    title ='),
        "x.py:5: there is no role 'root'.",
    ),
    "partition": (
        GOOD_PYTHON.replace("title =", 'partition_by = "id"\n    title ='),
        "x.py:5: partition_by is for reports in SQL only",
    ),
}


@pytest.mark.parametrize("case", PYTHON_PROBLEMS)
def test_a_problem_of_a_python_file_has_its_line(folder, case):
    text, expected = PYTHON_PROBLEMS[case]
    found = problems(folder, "x.py", text)
    assert found
    assert [line for line in found if line.startswith(expected)], found


def test_all_problems_are_told_at_once_and_good_reports_stay(folder):
    write(folder, "good.sql", head(""))
    write(folder, "bad.sql", head('queue = "x"\nlink = "x"\nrolse = ["x"]\n[params.a]\ntyp = "int"'))
    write(folder, "worse.sql", head('queue = "x"\nlink = "x"', "SELECT :a INTO x"))
    registry = load(folder)
    assert "good" in registry
    assert [(p.path.name, p.line) for p in registry.problems] == [
        *(("bad.sql", 5), ("bad.sql", 7)),
        *(("worse.sql", 3), ("worse.sql", 4), ("worse.sql", 6), ("worse.sql", 6)),
    ]
    assert registry.problems[0].key == "bad"
    with pytest.raises(BrokenReports) as caught:
        registry.check()
    assert str(caught.value).count("\n") == 6
    assert "bad.sql:5: rolse is no option of a report. Did you mean roles?" in str(caught.value)


def test_a_key_is_taken_once(folder):
    write(folder, "all_tasks.sql", head(""))
    registry = load(folder)
    assert [p.line for p in registry.problems] == [1]
    assert "the key all_tasks is taken by " in registry.problems[0].message
    assert registry.get("all_tasks").path.parent != folder


def test_files_that_are_no_text_are_a_problem(folder):
    (folder / "x.sql").write_bytes(b"/* title = '\xff' */ SELECT 1")
    (folder / "y.sql").mkdir()
    messages = [problem.message for problem in load(folder).problems]
    assert messages[0].startswith("the file is not UTF-8: ")
    assert messages[1] == "the file cannot be read: Is a directory"


def test_other_sources_and_roles_are_known_when_told(folder):
    write(folder, "x.sql", head('source = "warehouse"\nroles = ["auditor"]'))
    assert len(load(folder).problems) == 2
    load(folder, sources=["demo", "warehouse"], roles=["member", "admin", "auditor"]).check()


def test_an_unknown_key_is_not_found_with_the_nearest_one(folder):
    with pytest.raises(NotFound, match=r"There is no report 'all_task'. Did you mean all_tasks\?"):
        load(folder).get("all_task")
    with pytest.raises(NotFound) as caught:
        load(folder).get("x" * 1_000_000)
    assert len(str(caught.value)) < 500


def test_reports_come_by_group_and_title_and_only_those_allowed():
    registry = Registry.load()
    order = [(report.group, report.title) for report in registry]
    assert order == sorted(order)
    assert "members" not in [report.key for report in registry.for_user(["member"])]
    assert "members" in [report.key for report in registry.for_user(frozenset({"admin", "member"}))]
    assert registry.for_user([]) == []


def test_a_changed_file_is_read_again(folder):
    registry = load(folder)
    assert registry.refresh() is False
    path = write(folder, "ours.py", GOOD_PYTHON)
    assert registry.refresh() is True
    before = registry.get("ours")
    # As long as before and within the same second, so that a stale .pyc would win.
    changed = write(folder, "ours.py", GOOD_PYTHON.replace('"Ours"', '"Mine"'))
    stat = changed.stat()
    os.utime(changed, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1000))
    assert registry.refresh() is True
    assert registry.get("ours").title == "Mine"
    assert before.title == "Ours"
    path.unlink()
    assert registry.refresh() is True
    assert "ours" not in registry
    assert registry.refresh() is False


def test_a_broken_report_is_mended_by_a_refresh(folder):
    write(folder, "ours.sql", "SELECT 1")
    registry = load(folder)
    assert registry.problems
    write(folder, "ours.sql", head(""))
    registry.refresh()
    registry.check()
    assert "ours" in registry


def test_authors_modules_do_not_meet(folder):
    for name in ("one", "two"):
        (folder / name).mkdir()
        write(
            folder / name,
            f"{name}.py",
            GOOD_PYTHON.replace("class", "from dataclasses import dataclass\n\nclass"),
        )
    write(folder / "two", "json.py", GOOD_PYTHON)
    Registry.load(os.pathsep.join([str(folder / "one"), str(folder / "two")])).check()
    assert "class Ours" not in Path(str(sys.modules["json"].__file__)).read_text()
