"""The built-in reports, really run over the demo data."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from itertools import islice
from types import SimpleNamespace

import pytest

from app.params import KINDS
from app.reports import Registry, SqlReport, statement

NOW = datetime(2026, 2, 10, 12, tzinfo=UTC)
MEMBER = SimpleNamespace(id=1, email="member@demo.waybill.test")


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


@pytest.fixture
def run(registry, reading):
    def run(key: str, **raw: object) -> list[dict[str, object]]:
        """The rows as {column: value}, with the columns' names as promised."""
        report = registry.get(key)
        bound = report.params.bind(report.params.validate(raw, now=NOW, tz=UTC))
        names = [column.name for column in report.columns]
        if isinstance(report, SqlReport):
            query = statement(report, bound, MEMBER)
            rows = reading.in_client(query.sql, query.values)
            assert rows == reading.in_server(query.sql, query.values)
            limited = reading.conn.execute(f"SELECT * FROM ({query.sql}) AS r LIMIT 0".encode(), query.values)
            assert [column.name for column in limited.description] == names
        else:
            rows = list(report.rows(bound, reading))
        return [dict(zip(names, row, strict=True)) for row in rows]

    return run


def test_together_they_show_every_param_type(registry):
    assert {param.type for report in registry for param in report.params} == set(KINDS)


def test_all_tasks_gives_all_in_order(run):
    rows = run("all_tasks")
    assert [row["id"] for row in rows] == list(range(1, 2001))


def test_all_tasks_is_narrowed_by_each_param(run):
    for row in run("all_tasks", since="2024-01-01", until="2024-06-30", status="done"):
        assert datetime(2024, 1, 1, tzinfo=UTC) <= row["created_at"] < datetime(2024, 7, 1, tzinfo=UTC)
        assert row["status"] == "done"
    assert run("all_tasks", project="PAYROLL")
    assert run("all_tasks", project="%") == []
    mine = run("all_tasks", assignees="member@demo.waybill.test, admin@demo.waybill.test")
    assert {row["assignee"] for row in mine} == {"member@demo.waybill.test", "admin@demo.waybill.test"}
    assert all(row["description"] for row in run("all_tasks", described="yes"))
    assert run("all_tasks", assignees=[]) == []


def test_all_tasks_shows_what_csv_must_stand(run):
    told = "".join(str(row["title"]) + str(row["description"]) for row in run("all_tasks"))
    assert all(sign in told for sign in ('"', ",", "\n", "é", "価", "€"))
    assert None in [row["description"] for row in run("all_tasks")]


def test_my_tasks_are_those_of_the_person(run):
    rows = run("my_tasks", done="yes")
    assert len(rows) == 5
    assert len(run("my_tasks")) < 5
    assert [row["priority"] for row in rows] == sorted(row["priority"] for row in rows)


def test_members_may_be_filtered(run):
    everybody = run("members", active="no")
    assert len(everybody) == 6000
    assert all(row["active"] for row in run("members"))
    assert {row["role"] for row in run("members", role="owner")} == {"owner"}
    recent = run("members", seen_since="2025-12-31T12:00", joined_since="2025-01-01")
    assert recent
    assert all(row["last_seen_at"] >= datetime(2025, 12, 31, 12, tzinfo=UTC) for row in recent)


def test_late_invoices_are_late_today(run):
    rows = run("late_invoices")
    assert rows
    assert all(row["days_late"] >= 1 for row in rows)
    amounts = sorted(Decimal(str(row["amount"])) for row in rows)
    big = run("late_invoices", min_amount=str(amounts[1]), due_before="2026-01-01")
    assert sorted(row["amount"] for row in big) == amounts[1:]
    assert {row["currency"] for row in run("late_invoices", currency="EUR")} <= {"EUR"}
    assert run("late_invoices", companies="9001\n9002") == []
    assert run("late_invoices", due_before="2020-01-01") == []


def test_company_stats_computes_in_steps(run, reading):
    rows = run("company_stats")
    assert len(rows) == 240
    assert sum(row["members"] for row in rows) == 6000
    assert sum(row["tasks"] for row in rows) == 2000
    assert sum(row["invoices"] for row in rows) == 80
    assert len(reading.lines) == 6
    assert reading.ticks[-1] == (240, 240)


def test_company_stats_counts_nothing_that_came_later(run):
    rows = run("company_stats", as_of="2021-12-31", plan="team")
    assert rows
    assert {row["plan"] for row in rows} == {"team"}
    assert sum(row["tasks"] for row in rows) < 700


def test_slow_tasks_tells_of_every_part(run, reading):
    rows = run("slow_tasks", rows="103", batches="4", pause="0.01")
    assert [row["id"] for row in rows] == list(range(1, 104))
    assert [done for done, _ in reading.ticks] == [25, 51, 77, 103]
    assert len(reading.lines) == 5
    assert reading.checks >= 4


def test_slow_tasks_stops_at_once_when_cancelled(registry, reading):
    class Cancelled(BaseException):
        pass

    def check() -> None:
        raise Cancelled

    report = registry.get("slow_tasks")
    reading.check = check
    rows = report.rows(report.params.bind({"rows": 100, "batches": 10, "pause": "5"}), reading)
    assert len(list(islice(rows, 10))) == 10
    with pytest.raises(Cancelled):
        next(rows)
