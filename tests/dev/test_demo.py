"""The demo data: the same every time, made once, whole or not at all."""

from __future__ import annotations

import threading

import psycopg
import pytest

from app.dev import demo

TABLES = ("companies", "members", "projects", "tasks", "campaigns", "campaign_events", "invoices")
TASKS = 1000


def connect(url: str) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect("postgresql://" + url.partition("://")[2], autocommit=True)


def content(url: str) -> dict[str, tuple[object, ...]]:
    """Rows and a hash over all rows, table by table."""
    with connect(url) as conn:
        conn.execute("SET timezone = 'UTC'")
        found = {}
        for table in TABLES:
            query = f"SELECT count(*), md5(string_agg(t::text, '|' ORDER BY id)) FROM demo.{table} AS t"
            found[table] = conn.execute(query.encode()).fetchone() or ()
        return found


@pytest.fixture(scope="module")
def url(services) -> str:
    found: str = services.database("demo_one")
    assert demo.load(found, tasks=TASKS) is True
    return found


def test_a_second_load_does_nothing(url):
    before = content(url)
    told: list[str] = []
    assert demo.load(url, tasks=TASKS, report=told.append) is False
    assert told == []
    assert content(url) == before


def test_the_data_are_the_same_in_every_database(services, url):
    other = services.database("demo_two")
    with connect(other) as conn:
        conn.execute("ALTER DATABASE demo_two SET timezone = 'Asia/Tokyo'")
        conn.execute("ALTER DATABASE demo_two SET max_parallel_workers_per_gather = 0")
    told: list[str] = []
    assert demo.load(other, tasks=TASKS, report=told.append) is True
    assert told
    assert content(other) == content(url)


def test_there_is_what_the_reports_need(url):
    counts = {table: values[0] for table, values in content(url).items()}
    assert counts == {
        "companies": 240,
        "members": 6000,
        "projects": 2400,
        "tasks": 1000,
        "campaigns": 178,
        "campaign_events": 200,
        "invoices": 40,
    }
    with connect(url) as conn:
        assert conn.execute(
            "SELECT min(id), max(id), bool_and(created_at < demo.anchor()),"
            " bool_or(completed_at < created_at),"
            " bool_or(description IS NULL), bool_or(assignee_email = 'member@demo.waybill.test')"
            " FROM demo.tasks"
        ).fetchone() == (1, 1000, True, False, True, True)
        assert conn.execute("SELECT bool_and(email ~ '^[ -~]+$') FROM demo.members").fetchone() == (True,)
        assert conn.execute("SELECT count(DISTINCT name) FROM demo.companies").fetchone() == (240,)


def test_another_size_or_another_text_makes_them_anew(services):
    url = services.database("demo_three")
    assert demo.load(url, tasks=100) is True
    assert demo.load(url, tasks=200) is True
    assert content(url)["tasks"][0] == 200
    with connect(url) as conn:
        conn.execute("COMMENT ON SCHEMA demo IS 'Waybill demo data, 200 tasks, of an earlier text'")
    assert demo.load(url, tasks=200) is True


def test_a_killed_load_leaves_nothing_and_is_done_again(services):
    url = services.database("demo_four")

    def fail(text: str) -> None:
        if "tasks" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        demo.load(url, tasks=100, report=fail)
    with connect(url) as conn:
        assert conn.execute("SELECT to_regnamespace('demo')").fetchone() == (None,)
    assert demo.load(url, tasks=100) is True


def test_two_loads_at_once_make_them_once(services):
    url = services.database("demo_five")
    made: list[bool] = []
    threads = [threading.Thread(target=lambda: made.append(demo.load(url, tasks=100))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [False, False, True]


def test_the_url_may_name_the_driver(url):
    assert demo.load("postgresql+psycopg://" + url.partition("://")[2], tasks=TASKS) is False
