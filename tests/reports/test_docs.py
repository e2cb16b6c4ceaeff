"""docs/author.md tells of everything an author may write, and its examples work."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from app.params import KINDS, RESERVED, Param, Params
from app.params.spans import EXAMPLES, span
from app.reports import Registry, Report, ReportContext, SqlReport, statement

TEXT = (Path(__file__).parents[2] / "docs" / "author.md").read_text(encoding="utf-8")
TABLES = "\n".join(line for line in TEXT.splitlines() if line.startswith("|"))


def example(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)
    assert found
    return found[1]


@pytest.mark.parametrize("option", Report.OPTIONS)
def test_every_option_of_a_report_is_documented(option):
    assert f"| `{option}` |" in TABLES


@pytest.mark.parametrize("option", [field.name for field in fields(Param)])
def test_every_option_of_a_param_is_documented(option):
    assert re.search(rf"^\| (`\w+`, )?`{option}`(, `\w+`)? \|", TABLES, re.MULTILINE)


@pytest.mark.parametrize("type", KINDS)
def test_every_param_type_is_documented_with_its_type_in_the_query(type):
    param = Param("x", type)
    assert re.search(rf"^\| `{type}` \|.*\| `{re.escape(param.cast)}`", TABLES, re.MULTILINE)


def test_every_default_is_documented_as_it_is():
    for option in ("group", "source", "filename", "link", "queue"):
        assert f'| `{option}` | `"{getattr(Report, option)}"` |' in TABLES
    assert f"| `max_length` | `{Param('x').max_length}` |" in TABLES


@pytest.mark.parametrize("name", [name for name in vars(ReportContext) if not name.startswith("_")])
def test_everything_a_context_offers_is_documented(name):
    assert f"`context.{name}" in TABLES


@pytest.mark.parametrize("name", RESERVED)
def test_what_is_always_bound_is_documented(name):
    assert f"`:{name}`" in TEXT


def test_the_relative_words_of_the_text_work():
    section = TEXT.partition("### Relative dates")[2].partition("\n\n`last month`")[0]
    words = [word for word in re.findall(r"`([a-z0-9 ]+)`", section) if " " in word or word.endswith("day")]
    assert len(words) >= 6
    assert all(span(word, date(2026, 1, 31)) for word in [*words, *EXAMPLES])


def test_the_example_of_a_month_works():
    made = Params(Param(name, **given) for name, given in tomllib.loads(example("toml"))["params"].items())
    frozen = made.validate({}, now=datetime(2026, 3, 5, tzinfo=UTC), tz=UTC)
    assert frozen == {"since": "2026-02-01", "until": "2026-02-28"}


@pytest.mark.parametrize(
    ("language", "name"), [("sql", "stale_tasks.sql"), ("python", "tasks_per_project.py")]
)
def test_the_examples_run(tmp_path, reading, language, name):
    (tmp_path / name).write_text(example(language), encoding="utf-8")
    registry = Registry.load(str(tmp_path))
    registry.check()
    report = registry.get(Path(name).stem)
    bound = report.params.bind(report.params.validate({}, now=datetime(2026, 1, 31, tzinfo=UTC), tz=UTC))
    if isinstance(report, SqlReport):
        query = statement(report, bound, _Person())
        rows = reading.in_client(query.sql, query.values)
    else:
        rows = list(report.rows(bound, reading))
    assert rows
    assert len(rows[0]) == len(report.columns or ())


class _Person:
    id = 1
    email = "member@demo.waybill.test"
