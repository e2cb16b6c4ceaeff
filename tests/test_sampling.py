"""First rows: of reports in Python, started as for an export, and stopped after the last one shown; and of
queries that never end. Nobody else waits for them."""

from __future__ import annotations

import http.client
import json
import logging
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from textwrap import indent
from typing import Any

import duckdb
import psutil
import pytest
from flask.testing import FlaskClient
from sqlalchemy import select

from app import jobs, questions, sampling
from app.dev.child import Child, free_port, listens
from app.errors import InvalidParams
from app.extensions import db
from app.models import Job, User
from app.models.token import ApiToken
from app.reports import Registry
from app.settings import ROOT
from tests.conftest import Auth, Services
from tests.exporting import adder, artifact, make
from tests.waiting import PATIENCE, until

PROGRAM = """
import time
from itertools import count
from pathlib import Path
from app.errors import WaybillError
from app.reports import Bundle, Column, File, Lookup, Param, Params, Query, Report

class Made({base}):
    title = "Made"
    {options}

    def {method}(self, params, context):
"""
COLUMNS = 'columns = (Column("a"), Column("b"), Column("c"))'
# What a program does that stops at nothing of its own accord, or only where it asks.
ENDLESS = {
    "check": "while True:\n    time.sleep(0.01)\n    context.check()\nyield",
    "query": "while True:\n    list(context.query('SELECT 1 WHERE false'))\nyield",
    "progress": "for done in count():\n    context.progress(done)\nyield",
    "log": "while True:\n    context.log('Still here.')\nyield",
    "rows": "for number in count():\n    time.sleep(0.2)\n    yield number, 0, 0",
    "one query": "yield from context.query('SELECT 1, 2, pg_sleep(60)')",
    "no question": "while True:\n    pass\nyield",
    "deaf": "while True:\n    try:\n        sum(range(1000))\n    except Exception:\n        pass\nyield",
}
# Queries in libraries that compute for minutes and know nothing of gevent, by the scheme of their source.
ENDLESS_SQL = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) AS i FROM n",
    "duckdb": "SELECT max(hash(a.range + b.range)) AS i FROM range(10000000) AS a, range(1000000) AS b",
}


@pytest.fixture(autouse=True)
def context(app: Any, request: pytest.FixtureRequest) -> Iterator[None]:
    """Inside the app, unless the test comes from outside."""
    if "auth" in request.fixturenames:
        yield
        return
    with app.app_context():
        yield
        db.session.remove()


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    """A folder for marks that reports leave; `MARKS` in their text."""
    folder = tmp_path / "marks"
    folder.mkdir()
    return folder


@pytest.fixture
def add(app: Any, tmp_path: Path, marks: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """add(body): the report "made" with the columns a, b and c, and this in its `rows`."""
    folder = tmp_path / "reports"
    folder.mkdir()
    write = adder(app, folder, monkeypatch)

    def add(body: str, options: str = COLUMNS, *, base: str = "Report", method: str = "rows") -> None:
        head = PROGRAM.format(base=base, options=options, method=method)
        write("made.py", head + indent(body.replace("MARKS", repr(str(marks))), " " * 8))

    return add


@pytest.fixture
def add_bundle(add: Callable[..., None]) -> Callable[[str], None]:
    return lambda body: add(body, "", base="Bundle", method="files")


@pytest.fixture
def take(member: User) -> Callable[..., sampling.Sample]:
    def take(params: dict[str, object] | None = None, **options: Any) -> sampling.Sample:
        return sampling.sample(jobs.think_of(db.session.merge(member), "made", params or {}, **options))

    return take


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "LIMIT", timedelta(seconds=0.5))


# --- what is shown ----------------------------------------------------------------------------------------


def test_the_first_rows_come_and_the_generator_is_closed(
    add: Callable[..., None], take: Callable[..., sampling.Sample], marks: Path
) -> None:
    add(
        """
try:
    for number in count(1):
        Path(MARKS, "row").write_text(str(number))
        yield number, None, b"\\xff"
finally:
    Path(MARKS, "closed").touch()
"""
    )
    found = take()
    assert (found.trouble, found.file, list(found.columns)) == ("", "", ["a", "b", "c"])
    assert len(found.rows) == 50
    assert found.rows[49] == ["50", None, "\\xff"]
    assert (marks / "row").read_text() == "50"
    assert (marks / "closed").exists()
    assert db.session.scalar(select(Job)) is None


def test_chosen_columns_are_shown_in_their_order(
    add: Callable[..., None], take: Callable[..., sampling.Sample]
) -> None:
    add("yield 1, 2, 3")
    found = take(columns=["c", "a"])
    assert (list(found.columns), found.rows) == (["c", "a"], [["3", "1"]])
    with pytest.raises(InvalidParams):
        take(columns=["d"])


def test_it_is_started_with_what_was_asked_and_who_asks(
    add: Callable[..., None], take: Callable[..., sampling.Sample], member: User
) -> None:
    add(
        "context.log('On it.')\n"
        "context.progress(0, 1)\n"
        "yield params['day'], context.user_email, context.user_id\n"
        "yield from context.query('SELECT :day, :list, NULL', day=params['day'], list=[1, 2])",
        COLUMNS + '\n    params = Params([Param("day", "date", required=True)])',
    )
    assert take({"day": "2026-01-31"}).rows == [
        ["2026-01-31", "member@example.org", str(member.id)],
        ["2026-01-31", "{1,2}", None],
    ]


def test_no_rows_are_no_trouble(add: Callable[..., None], take: Callable[..., sampling.Sample]) -> None:
    add("return iter(())")
    assert take() == sampling.Sample(["a", "b", "c"], [])


def test_a_lookup_shows_its_rows(add: Callable[..., None], take: Callable[..., sampling.Sample]) -> None:
    options = COLUMNS + '\n    params = Params([Param("ids", "list")])\n    lookup = Lookup("ids", "a")'
    add("for key in params['ids']:\n    yield key, 0, 0", options)
    assert take({"ids": ["x", "y"]}).rows == [["x", "0", "0"], ["y", "0", "0"]]


@pytest.mark.parametrize(
    ("key", "file", "column"),
    [("company_stats", "", "company"), ("slow_tasks", "", "title"), ("campaign_export", ".csv", "kind")],
)
def test_built_in_reports_in_python_show_theirs(
    key: str, file: str, column: str, demo: None, member: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "LIMIT", timedelta(seconds=PATIENCE))
    found = sampling.sample(jobs.think_of(db.session.merge(member), key, {}))
    assert not found.trouble
    assert 0 < len(found.rows) <= 50
    assert found.file.endswith(file)
    assert column in found.columns


# --- several files ----------------------------------------------------------------------------------------


def test_of_several_files_the_first_is_shown(
    add_bundle: Callable[[str], None], take: Callable[..., sampling.Sample], marks: Path
) -> None:
    add_bundle(
        """
def rows():
    try:
        yield from ((number, "x") for number in count())
    finally:
        Path(MARKS, "rows").touch()
try:
    yield File("north/east", rows(), ("n", "x"))
    Path(MARKS, "second").touch()
finally:
    Path(MARKS, "files").touch()
"""
    )
    found = take(format="jsonl")
    assert (found.file, found.columns, len(found.rows)) == ("north_east.jsonl", ["n", "x"], 50)
    assert sorted(path.name for path in marks.iterdir()) == ["files", "rows"]


def test_a_file_may_be_a_query_or_a_list(
    add_bundle: Callable[[str], None], take: Callable[..., sampling.Sample]
) -> None:
    add_bundle(
        "for (number,) in context.query('SELECT generate_series(7, 9)'):\n"
        "    yield File('many', Query('SELECT generate_series(1, :n) AS i', n=number * 10))"
    )
    found = take()
    assert (found.file, found.columns, len(found.rows)) == ("many.csv", ["i"], 50)
    add_bundle("yield File('few', [(1, None), (2, 3)], ('a', 'b'))")
    assert take().rows == [["1", None], ["2", "3"]]


def test_no_file_is_told(add_bundle: Callable[[str], None], take: Callable[..., sampling.Sample]) -> None:
    add_bundle("return iter(())")
    assert "gives no file" in take().trouble


# --- what goes wrong --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("yield 1, 2, 3\nyield 4, 5", "Row 2 has 2 values, but the report promises 3 columns"),
        ("raise WaybillError('There is no calendar for 2031.')\nyield", "There is no calendar for 2031."),
        ("yield from context.query('SELECT 1 / 0')", "division by zero"),
        ("yield from context.query('DELETE FROM tasks')", "was refused"),
    ],
)
def test_what_went_wrong_is_told(
    body: str, said: str, add: Callable[..., None], take: Callable[..., sampling.Sample]
) -> None:
    add(body)
    assert said in take().trouble


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("yield 1, 2, 3\nraise LookupError('no such plan')", "(LookupError: no such plan)"),
        ("raise SystemExit(3)", "(SystemExit: 3)"),
        ("yield 1", "(TypeError:"),
        ("return None", "(TypeError:"),
        ("try:\n    yield from ((1, 2, 3) for _ in count())\nfinally:\n    [].pop()", "(IndexError:"),
    ],
)
def test_an_error_of_its_own_is_told_and_logged(
    body: str,
    said: str,
    add: Callable[..., None],
    take: Callable[..., sampling.Sample],
    caplog: pytest.LogCaptureFixture,
) -> None:
    add(body)
    with caplog.at_level(logging.ERROR, "app.sampling"):
        found = take()
    assert said in found.trouble
    assert not found.rows
    (record,) = caplog.records
    assert "first rows of made" in record.getMessage()
    assert record.exc_info is not None


@pytest.mark.parametrize("body", ENDLESS.values(), ids=ENDLESS.keys())
@pytest.mark.usefixtures("hurry")
def test_a_program_without_end_is_stopped(
    body: str, add: Callable[..., None], take: Callable[..., sampling.Sample], marks: Path
) -> None:
    add(f"try:\n{indent(body, '    ')}\nfinally:\n    Path(MARKS, 'closed').touch()")
    assert "did not come within 0.5 s" in take().trouble
    until(lambda: (marks / "closed").exists() and not questions.at_work())


@pytest.mark.usefixtures("hurry")
def test_programs_that_do_not_stop_are_not_joined_by_more_and_more(
    add: Callable[..., None], take: Callable[..., sampling.Sample], marks: Path, member: User
) -> None:
    add(
        """
while not Path(MARKS, "enough").exists():
    try:
        time.sleep(0.05)
        context.check()
    except BaseException:
        pass
yield 1, 2, 3
"""
    )
    try:
        for number in range(1, sampling.MOST + 1):
            assert "did not come" in take().trouble
            assert questions.at_work() == number
        assert "Too many questions" in take().trouble
        # A place is left to what is asked for forms and jobs.
        report = jobs.report_for(db.session.merge(member), "made")
        limit = timedelta(seconds=PATIENCE)
        assert questions.ask(report, limit, lambda reading: list(reading.rows("SELECT 7", {}))) == [(7,)]
    finally:
        (marks / "enough").touch()
        until(lambda: not questions.at_work())
    assert take().rows == [["1", "2", "3"]]


def test_a_report_may_not_want_to_be_started_for_its_first_rows(
    add: Callable[..., None], take: Callable[..., sampling.Sample], marks: Path
) -> None:
    add("Path(MARKS, 'started').touch()\nyield 1, 2, 3", COLUMNS + "\n    sampled = False")
    assert "are not shown" in take().trouble
    assert not (marks / "started").exists()


def test_sampled_is_true_or_false(tmp_path: Path) -> None:
    (tmp_path / "asked.sql").write_text('/*\ntitle = "Asked"\nsampled = "no"\n*/\nSELECT 1 AS a')
    (problem,) = Registry.load(str(tmp_path)).problems
    assert "sampled must be true or false" in str(problem)
    assert ":3" in str(problem)


def test_an_export_is_as_it_was(add: Callable[..., None], member: User) -> None:
    """The context is the same one: of an export it asks the lease."""
    add("yield from context.query('SELECT i, 2, 3 FROM generate_series(1, 60) AS i')")
    job = make(member, "made", columns=["c", "a"])
    assert artifact(job)[1].splitlines()[:2] == [b"c,a", b"3,1"]
    assert job.progress_done == 60


# --- the form, the API, and the web process ---------------------------------------------------------------


@pytest.fixture
def signed_in(client: FlaskClient, auth: Auth, member: User) -> FlaskClient:
    auth.sign_in(member)
    return client


def ask(client: FlaskClient, auth: Auth, **headers: str) -> str:
    form = {"csrf_token": auth.csrf(), "report": "made", "format": "csv", "sample": "1"}
    answer = client.post("/reports/made/preflight", data=form, headers=headers)
    assert answer.status_code == 200
    return answer.text


def test_the_form_shows_them(signed_in: FlaskClient, auth: Auth, add: Callable[..., None]) -> None:
    add("yield 'first', None, '<b>'")
    page = ask(signed_in, auth)
    for shown in ("Show the first rows", "<td>first</td>", "&lt;b&gt;", "1 row<"):
        assert shown in page
    add("raise LookupError('<no plan>')\nyield")
    assert "LookupError: &lt;no plan&gt;" in ask(signed_in, auth, **{"X-Fragment": "preflight"})


def test_the_form_names_the_first_of_several_files(
    signed_in: FlaskClient, auth: Auth, add_bundle: Callable[[str], None]
) -> None:
    add_bundle("yield File('<north>', [(1,)], ('number',))")
    assert "First rows of the first file, <bdi>_north_.csv</bdi>" in ask(signed_in, auth)


def test_the_form_says_that_they_are_not_shown(
    signed_in: FlaskClient, auth: Auth, add: Callable[..., None]
) -> None:
    add("yield 1, 2, 3", COLUMNS + "\n    sampled = False")
    page = signed_in.get("/reports/made").text
    assert "Show the first rows" not in page
    assert "started for exports alone" in page
    assert "are not shown" in ask(signed_in, auth)


def test_the_api_gives_them(signed_in: FlaskClient, auth: Auth, add_bundle: Callable[[str], None]) -> None:
    add_bundle("yield File('north', [(1,)], ('number',))")
    answer = signed_in.post(
        "/api/v1/reports/made/preflight", json={"sample": True}, headers={"X-CSRFToken": auth.csrf()}
    )
    assert answer.status_code == 200
    expected = {"columns": ["number"], "rows": [["1"]], "trouble": None, "file": "north.csv"}
    assert answer.get_json()["sample"] == expected


@dataclass(frozen=True)
class Web:
    """A web process as it runs in production, with reports of ours."""

    port: int
    process: psutil.Process
    secret: str

    def ask(self, method: str, path: str, body: str = "") -> http.client.HTTPConnection:
        """A connection whose answer is on its way."""
        headers = {"Authorization": f"Bearer {self.secret}", "Content-Type": "application/json"}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        connection.request(method, path, body or None, headers)
        return connection

    def trouble(self, connection: http.client.HTTPConnection) -> str:
        """Why there are no first rows."""
        with closing(connection):
            trouble: str = json.loads(connection.getresponse().read())["sample"]["trouble"]
        return trouble

    def first_rows(self, keys: Sequence[str]) -> list[http.client.HTTPConnection]:
        return [self.ask("POST", f"/api/v1/reports/{key}/preflight", '{"sample": true}') for key in keys]

    def idle(self) -> bool:
        return all(worker.cpu_percent(interval=0.5) < 20 for worker in self.process.children())


@pytest.fixture
def web(session_environ: dict[str, str], services: Services, tmp_path: Path, member: User) -> Iterator[Web]:
    folder = tmp_path / "served"
    folder.mkdir()
    for name in ("no question", "one query"):
        head = PROGRAM.format(base="Report", options=COLUMNS, method="rows")
        (folder / f"{name.replace(' ', '_')}.py").write_text(head + indent(ENDLESS[name], " " * 8))
    for name, sql in ENDLESS_SQL.items():
        (folder / f"{name}.sql").write_text(f'/*\ntitle = "{name}"\nsource = "{name}"\n*/\n{sql}')
    with closing(sqlite3.connect(tmp_path / "sqlite")) as file:
        file.execute("CREATE TABLE things (id)")
    duckdb.connect(str(tmp_path / "duckdb")).close()
    port = free_port()
    environ = {**session_environ, "PORT": str(port), "REPORTS_PATH": str(folder), "PATH": os.environ["PATH"]}
    environ |= {f"SOURCE_{name.upper()}_URL": f"{name}:///{tmp_path / name}" for name in ENDLESS_SQL}
    gunicorn = str(Path(sys.executable).with_name("gunicorn"))
    child = Child(
        "web",
        [gunicorn, "wsgi:app"],
        log=services.directory / "sampling.log",
        environ=environ,
        directory=ROOT,
    )
    _, secret = ApiToken.create(member, "test")
    db.session.commit()
    child.start()
    child.wait_until(lambda: listens(port))
    yield Web(port, psutil.Process(child.pid), secret)
    child.stop()


@pytest.mark.slow
def test_the_web_process_serves_others_meanwhile(web: Web) -> None:
    """Without threads of their own, any of these would keep this process for ever."""
    busy = web.first_rows(["no_question", *ENDLESS_SQL])
    with closing(web.ask("GET", "/healthz")) as other:
        assert other.getresponse().status == 200
    for connection in busy:
        assert "did not come within 5 s" in web.trouble(connection)
    until(web.idle)
    # There are as many places as there were.
    for connection in web.first_rows(["one_query"] * sampling.MOST):
        assert "did not come within 5 s" in web.trouble(connection)
