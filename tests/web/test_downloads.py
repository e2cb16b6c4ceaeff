"""The emailed link: what it hands out, to whom, how often, and how it ends."""

from __future__ import annotations

import hashlib
import http.client
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import psutil
import pytest
import sqlalchemy as sa
from apiflask import APIFlask
from flask.testing import FlaskClient
from werkzeug.http import http_date, parse_options_header

from app import create_app, links
from app.dev.child import Child, free_port
from app.dev.seaweedfs import SeaweedFS
from app.extensions import db
from app.models import Artifact, Download, Job
from app.storage import Storage, artifact_key
from tests.waiting import PATIENCE, until

CONTENT = b"id,title\r\n" + b"".join(b"%d,row %d\r\n" % (n, n) for n in range(1, 1001))
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MIB = 1024 * 1024


@dataclass(frozen=True)
class Published:
    """A finished job's artifact, its bytes in the storage."""

    job_id: UUID
    artifact_id: UUID
    key: str
    path: str

    def change(self, app: APIFlask, **values: Any) -> None:
        with app.app_context():
            db.session.execute(sa.update(Artifact).where(Artifact.id == self.artifact_id).values(**values))
            db.session.commit()

    def downloads(self, app: APIFlask) -> list[Download]:
        with app.app_context():
            return list(db.session.scalars(sa.select(Download).order_by(Download.id)))


def storage_of(app: APIFlask) -> Storage:
    found: Storage = app.extensions["waybill.storage"]
    return found


def publish(
    app: APIFlask,
    owner: Any,
    content: bytes = CONTENT,
    *,
    filename: str = "all-tasks.csv",
    report: str = "all_tasks",
    ttl: timedelta = timedelta(hours=24),
) -> Published:
    job_id = uuid4()
    key = artifact_key(job_id, 1, "csv")
    with storage_of(app).writer(key, content_type="text/csv; charset=utf-8", filename=filename) as writer:
        writer.write(content)
        writer.commit()
    with app.app_context():
        db.session.add(
            Job(
                id=job_id,
                kind="export",
                definition=report,
                title="All tasks",
                owner_id=owner.id,
                status="succeeded",
                attempt=1,
                finished_at=datetime.now(UTC),
            )
        )
        db.session.flush()
        artifact = Artifact(
            job_id=job_id,
            key=key,
            filename=filename,
            content_type="text/csv; charset=utf-8",
            bytes=len(content),
            rows=1000,
            sha256=hashlib.sha256(content).hexdigest(),
            receipt={},
            expires_at=datetime.now(UTC) + ttl,
        )
        db.session.add(artifact)
        db.session.commit()
        path = urlsplit(links.url(artifact)).path
        return Published(job_id, artifact.id, key, path)


@pytest.fixture
def published(app: APIFlask, member: Any) -> Published:
    return publish(app, member)


def get(client: FlaskClient, path: str, **headers: Any) -> Any:
    """Read to the end and closed, as a server does it."""
    return client.get(path, buffered=True, **headers)


# --- the file ---------------------------------------------------------------------------------------------


def test_the_whole_file(client: FlaskClient, published: Published) -> None:
    answer = get(client, published.path)
    assert answer.status_code == 200
    assert answer.data == CONTENT
    assert answer.headers["Content-Length"] == str(len(CONTENT))
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="all-tasks.csv"'
    assert answer.headers["ETag"] == f'"{SHA256}"'
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.last_modified is not None


def test_the_headers_of_a_secret(client: FlaskClient, published: Published) -> None:
    forged = get(client, "/d/" + "A" * 56)
    file = get(client, published.path)
    assert file.headers["Content-Security-Policy"] == "sandbox; default-src 'none'"
    assert file.headers["Cache-Control"] == "private, no-transform, max-age=0, must-revalidate"
    assert "no-store" in forged.headers["Cache-Control"]
    for answer in (forged, file):
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "noindex" in answer.headers["X-Robots-Tag"]
        assert "Set-Cookie" not in answer.headers


def test_head_tells_the_size_and_sends_nothing(
    app: APIFlask, client: FlaskClient, published: Published
) -> None:
    answer = client.head(published.path, headers={"Range": "bytes=0-9"})
    assert answer.status_code == 200
    assert answer.data == b""
    assert answer.headers["Content-Length"] == str(len(CONTENT))
    assert published.downloads(app) == []


LAST = len(CONTENT) - 1


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-", 0, LAST),
        ("bytes=0-0", 0, 0),
        ("bytes=5-9", 5, 9),
        ("bytes=1000-", 1000, LAST),
        ("bytes=1000-99999999", 1000, LAST),
        ("bytes=-10", LAST - 9, LAST),
        (f"bytes={LAST}-", LAST, LAST),
    ],
)
def test_a_range(client: FlaskClient, published: Published, asked: str, start: int, end: int) -> None:
    answer = get(client, published.path, headers={"Range": asked})
    assert answer.status_code == 206
    assert answer.data == CONTENT[start : end + 1]
    assert answer.headers["Content-Range"] == f"bytes {start}-{end}/{len(CONTENT)}"
    assert answer.headers["Content-Length"] == str(end + 1 - start)


@pytest.mark.parametrize("asked", [f"bytes={LAST + 1}-", "bytes=99999999-"])
def test_a_range_beyond_the_end(client: FlaskClient, published: Published, asked: str) -> None:
    answer = get(client, published.path, headers={"Range": asked})
    assert (answer.status_code, answer.data) == (416, b"")
    assert answer.headers["Content-Range"] == f"bytes */{len(CONTENT)}"


@pytest.mark.parametrize("asked", ["bytes=0-1,5-9", "rows=1-2", "bytes=x", "bytes=9-5", "nonsense", ""])
def test_what_is_no_single_range_gets_the_whole(
    client: FlaskClient, published: Published, asked: str
) -> None:
    answer = get(client, published.path, headers={"Range": asked})
    assert (answer.status_code, answer.data) == (200, CONTENT)


def test_if_range(client: FlaskClient, published: Published) -> None:
    """A resumed download goes on only with the same bytes."""
    modified = client.head(published.path).headers["Last-Modified"]
    for known, status in (
        (f'"{SHA256}"', 206),
        (modified, 206),
        ('"other"', 200),
        (http_date(datetime(2020, 1, 1, tzinfo=UTC)), 200),
    ):
        answer = get(client, published.path, headers={"Range": "bytes=5-9", "If-Range": known})
        assert answer.status_code == status


def test_what_the_browser_has_is_not_sent_again(
    app: APIFlask, client: FlaskClient, published: Published
) -> None:
    modified = client.head(published.path).headers["Last-Modified"]
    for known in ({"If-None-Match": f'"{SHA256}"'}, {"If-Modified-Since": modified}):
        answer = get(client, published.path, headers=known)
        assert (answer.status_code, answer.data) == (304, b"")
    assert get(client, published.path, headers={"If-None-Match": '"x"'}).status_code == 200
    assert get(client, published.path, headers={"If-Match": '"x"'}).status_code == 412
    assert len(published.downloads(app)) == 1


@pytest.mark.parametrize(
    ("filename", "offered"),
    [
        ('say "cheese".csv', 'say "cheese".csv'),
        ("a\r\nSet-Cookie: x=1.csv", "a__Set-Cookie: x=1.csv"),
        ("Übersicht – März.csv", "Übersicht – März.csv"),
        ("../../etc/passwd", "_.._etc_passwd"),
        ("売上.csv", "売上.csv"),
    ],
)
def test_names(app: APIFlask, client: FlaskClient, member: Any, filename: str, offered: str) -> None:
    answer = get(client, publish(app, member, filename=filename).path)
    assert parse_options_header(answer.headers["Content-Disposition"]) == (
        "attachment",
        {"filename": offered},
    )
    assert "Set-Cookie" not in answer.headers


def test_no_connection_is_held_while_bytes_flow(app: APIFlask, client: FlaskClient, member: Any) -> None:
    large = publish(app, member, bytes(3 * MIB))
    answer = client.get(large.path, buffered=False)
    next(answer.iter_encoded())
    with app.app_context():
        pool = db.engine.pool
        assert isinstance(pool, sa.QueuePool)
        assert pool.checkedout() == 0
    answer.close()


# --- who came ---------------------------------------------------------------------------------------------


def test_each_download_is_recorded(
    app: APIFlask, client: FlaskClient, auth: Any, member: Any, published: Published
) -> None:
    get(client, published.path, headers={"User-Agent": "curl/8 " + "x" * 900})
    get(auth.client_of(member), published.path, headers={"Range": "bytes=0-"})
    first, second = published.downloads(app)
    assert (first.artifact_id, first.user_id, first.address) == (published.artifact_id, None, "127.0.0.1")
    assert first.user_agent.startswith("curl/8 x")
    assert len(first.user_agent) == 500
    assert (second.user_id, second.artifact_id) == (member.id, published.artifact_id)


def test_a_link_may_be_used_again_and_looked_at(
    app: APIFlask, client: FlaskClient, published: Published
) -> None:
    """Mail scanners open every link; nothing is used up by that."""
    for _ in range(3):
        client.head(published.path)
        assert get(client, published.path).data == CONTENT
    assert len(published.downloads(app)) == 3


def test_the_rest_of_a_download_is_not_another_one(
    app: APIFlask, client: FlaskClient, published: Published
) -> None:
    get(client, published.path, headers={"Range": "bytes=500-"})
    get(client, published.path, headers={"Range": "bytes=99999999-"})
    assert published.downloads(app) == []


def test_a_download_that_cannot_be_recorded_goes_on(
    app: APIFlask, client: FlaskClient, published: Published, caplog: pytest.LogCaptureFixture
) -> None:
    with renamed(app, "downloads"):
        answer = get(client, published.path)
    assert (answer.status_code, answer.data) == (200, CONTENT)
    assert "could not be recorded" in caplog.text


class renamed:
    """A table that is out of reach meanwhile."""

    def __init__(self, app: APIFlask, table: str) -> None:
        self.app, self.table = app, table

    def __enter__(self) -> None:
        self._rename(self.table, "elsewhere")

    def __exit__(self, *_: object) -> None:
        self._rename("elsewhere", self.table)

    def _rename(self, old: str, new: str) -> None:
        with self.app.app_context(), db.engine.begin() as connection:
            connection.execute(sa.text(f"ALTER TABLE {old} RENAME TO {new}"))


# --- how it ends ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["x", "A" * 56, "A" * 57, "%00" * 56, "é" * 56, "-" * 10_000])
def test_what_we_never_made_is_not_found(client: FlaskClient, published: Published, token: str) -> None:
    assert get(client, f"/d/{token}").status_code == 404
    assert client.head(f"/d/{token}").status_code == 404


def test_a_flipped_character_is_not_found(client: FlaskClient, published: Published) -> None:
    flipped = published.path[:-1] + ("A" if published.path[-1] != "A" else "B")
    answer = get(client, flipped)
    assert answer.status_code == 404
    assert "copied whole" in answer.text


Ending = Callable[[APIFlask, Published], None]

ENDINGS: dict[str, tuple[Ending, str]] = {
    "expired": (
        lambda app, it: it.change(app, expires_at=sa.text("clock_timestamp()")),
        "This link has expired",
    ),
    "removed": (lambda app, it: it.change(app, removed_at=sa.func.now()), "This link has expired"),
    "revoked": (lambda app, it: it.change(app, link_revoked_at=sa.func.now()), "This link was revoked"),
    "replaced": (lambda app, it: it.change(app, link_generation=2), "replaced by a newer one"),
    "lost": (lambda app, it: storage_of(app).delete(it.key), "no longer here"),
    "damaged": (lambda app, it: it.change(app, bytes=7), "no longer here"),
}


@pytest.fixture(params=ENDINGS)
def ended(request: pytest.FixtureRequest, app: APIFlask, published: Published) -> tuple[Published, str]:
    end, words = ENDINGS[request.param]
    end(app, published)
    return published, words


def test_a_link_that_is_over_says_what_it_was(
    app: APIFlask, client: FlaskClient, ended: tuple[Published, str]
) -> None:
    over, words = ended
    answer = get(client, over.path)
    assert answer.status_code == 410
    assert words in answer.text
    assert "All tasks" in answer.text
    assert "all-tasks.csv" in answer.text
    assert "Sign in to generate it again" in answer.text
    assert "no-store" in answer.headers["Cache-Control"]
    assert client.head(over.path).status_code == 410
    assert over.downloads(app) == []


def test_its_owner_can_generate_it_again(auth: Any, member: Any, ended: tuple[Published, str]) -> None:
    over, _ = ended
    mine = auth.client_of(member)
    page = get(mine, over.path)
    action = f"/jobs/{over.job_id}/again"
    assert f'action="{action}"' in page.text
    answer = mine.post(action, data={"csrf_token": auth.csrf(mine)})
    assert answer.status_code == 303
    assert answer.location.startswith("/jobs/")
    assert str(over.job_id) not in answer.location


def test_another_person_is_told_whom_to_ask(auth: Any, other: Any, ended: tuple[Published, str]) -> None:
    over, _ = ended
    page = get(auth.client_of(other), over.path)
    assert page.status_code == 410
    assert "Only the person who asked for it" in page.text
    assert "/again" not in page.text


def test_a_token_that_outlived_itself_is_over_though_the_file_is_there(
    app: APIFlask, client: FlaskClient, member: Any
) -> None:
    short = publish(app, member, ttl=timedelta(seconds=-5))
    short.change(app, expires_at=datetime.now(UTC) + timedelta(hours=1))
    assert get(client, short.path).status_code == 410


def test_a_link_without_its_job_is_gone(app: APIFlask, client: FlaskClient, published: Published) -> None:
    with app.app_context():
        db.session.execute(sa.delete(Job))
        db.session.commit()
    answer = get(client, published.path)
    assert answer.status_code == 410
    assert "no longer here" in answer.text


# --- revoking and renewing --------------------------------------------------------------------------------


def post(auth: Any, client: FlaskClient, path: str) -> Any:
    return client.post(path, data={"csrf_token": auth.csrf(client)})


def link_path(app: APIFlask, published: Published) -> str:
    with app.app_context():
        return urlsplit(links.url(db.session.get_one(Artifact, published.artifact_id))).path


@pytest.mark.parametrize("who", ["member", "admin"])
def test_a_revoked_link_opens_for_nobody_until_there_is_a_new_one(
    request: pytest.FixtureRequest,
    app: APIFlask,
    auth: Any,
    client: FlaskClient,
    published: Published,
    who: str,
) -> None:
    person = auth.client_of(request.getfixturevalue(who))
    assert get(client, published.path).status_code == 200
    answer = post(auth, person, f"/jobs/{published.job_id}/link/revocation")
    assert (answer.status_code, answer.location) == (303, f"/jobs/{published.job_id}")
    assert get(client, published.path).status_code == 410
    assert get(person, published.path).status_code == 410

    answer = post(auth, person, f"/jobs/{published.job_id}/link")
    assert (answer.status_code, answer.location) == (303, f"/jobs/{published.job_id}")
    assert get(client, published.path).status_code == 410
    assert get(client, link_path(app, published)).status_code == 200


def test_a_new_link_replaces_the_old_one(app: APIFlask, auth: Any, member: Any, published: Published) -> None:
    mine = auth.client_of(member)
    post(auth, mine, f"/jobs/{published.job_id}/link")
    assert get(mine, published.path).status_code == 410
    assert get(mine, link_path(app, published)).status_code == 200


def test_there_is_no_new_link_to_an_expired_file(
    app: APIFlask, auth: Any, member: Any, published: Published
) -> None:
    published.change(app, expires_at=datetime.now(UTC))
    mine = auth.client_of(member)
    assert post(auth, mine, f"/jobs/{published.job_id}/link").status_code == 303
    assert "no new link" in get(mine, f"/jobs/{published.job_id}").text
    assert get(mine, link_path(app, published)).status_code == 410


@pytest.mark.parametrize("path", ["link", "link/revocation"])
def test_only_owner_and_admins_touch_a_link(
    auth: Any, client: FlaskClient, member: Any, other: Any, published: Published, path: str
) -> None:
    url = f"/jobs/{published.job_id}/{path}"
    assert post(auth, auth.client_of(other), url).status_code == 404
    assert post(auth, client, url).status_code == 303
    assert auth.client_of(member).post(url).status_code == 400
    assert get(client, published.path).status_code == 200


def test_a_job_without_a_file_has_no_link(
    app: APIFlask, auth: Any, member: Any, published: Published
) -> None:
    with app.app_context():
        db.session.execute(sa.delete(Artifact))
        db.session.commit()
    answer = post(auth, auth.client_of(member), f"/jobs/{published.job_id}/link")
    assert answer.status_code == 404


# --- reports whose links ask for a sign-in ----------------------------------------------------------------

PRIVATE = """/*
title = "Salaries"
source = "demo"
link = "signed-in"
*/
SELECT 1 AS one
"""


@pytest.fixture
def other_app(app: APIFlask, environ: dict[str, str]) -> Iterator[Callable[..., APIFlask]]:
    """An app over the same database with other settings."""
    made = []

    def make(**settings: str) -> APIFlask:
        made.append(create_app(environ | settings))
        return made[-1]

    yield make
    for one in made:
        with one.app_context():
            db.session.remove()
            db.engine.dispose()
        one.extensions["waybill.redis"].close()


@pytest.fixture
def private_app(other_app: Callable[..., APIFlask], tmp_path: Path) -> APIFlask:
    (tmp_path / "salaries.sql").write_text(PRIVATE)
    return other_app(REPORTS_PATH=str(tmp_path))


@pytest.mark.parametrize("report", ["salaries", "a_report_that_is_gone"])
def test_a_private_link_asks_who_comes(
    private_app: APIFlask, auth: Any, member: Any, other: Any, admin: Any, report: str
) -> None:
    private = publish(private_app, member, report=report)
    auth.app = private_app
    anybody = private_app.test_client()
    asked = get(anybody, private.path)
    assert asked.status_code == 303
    assert asked.location == f"/sign-in?next={private.path}"
    assert anybody.head(private.path).status_code == 303
    assert get(auth.client_of(other), private.path).status_code == 404
    assert get(auth.client_of(member), private.path).data == CONTENT
    assert get(auth.client_of(admin), private.path).data == CONTENT


def test_a_private_link_that_is_over_tells_nothing_to_strangers(
    private_app: APIFlask, auth: Any, member: Any, other: Any
) -> None:
    private = publish(private_app, member, report="salaries")
    private.change(private_app, link_revoked_at=sa.func.now())
    auth.app = private_app
    assert get(private_app.test_client(), private.path).status_code == 303
    assert get(auth.client_of(other), private.path).status_code == 404
    assert get(auth.client_of(member), private.path).status_code == 410


# --- S3 ---------------------------------------------------------------------------------------------------


@pytest.fixture
def s3_app(other_app: Callable[..., APIFlask], s3: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> APIFlask:
    for name, value in s3.environ.items():
        monkeypatch.setenv(name, value)
    return other_app(STORAGE_URL=f"s3://downloads/{uuid4().hex}")


def test_s3_hands_out_the_file_itself(s3_app: APIFlask, member: Any) -> None:
    there = publish(s3_app, member, filename="Größe.csv")
    answer = get(s3_app.test_client(), there.path)
    assert answer.status_code == 302
    assert "X-Amz-Expires=60" in answer.location
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert "no-store" in answer.headers["Cache-Control"]
    status, headers, body = ask(answer.location)
    assert (status, body) == (200, CONTENT)
    assert parse_options_header(headers["Content-Disposition"]) == ("attachment", {"filename": "Größe.csv"})
    assert headers["Content-Type"] == "text/csv; charset=utf-8"
    assert len(there.downloads(s3_app)) == 1


def test_s3_head_is_answered_here(s3_app: APIFlask, member: Any) -> None:
    there = publish(s3_app, member)
    answer = s3_app.test_client().head(there.path)
    assert (answer.status_code, answer.headers["Content-Length"]) == (200, str(len(CONTENT)))
    assert there.downloads(s3_app) == []


def test_s3_resumed(s3_app: APIFlask, member: Any) -> None:
    there = publish(s3_app, member)
    asked = {"Range": "bytes=1000-"}
    answer = get(s3_app.test_client(), there.path, headers=asked)
    assert ask(answer.location, asked)[::2] == (206, CONTENT[1000:])
    assert there.downloads(s3_app) == []


def test_s3_lost(s3_app: APIFlask, member: Any) -> None:
    there = publish(s3_app, member)
    storage_of(s3_app).delete(there.key)
    assert get(s3_app.test_client(), there.path).status_code == 410


def test_s3_down(
    s3_app: APIFlask, other_app: Callable[..., APIFlask], member: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = publish(s3_app, member)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{free_port()}")
    down = other_app(STORAGE_URL="s3://downloads")
    answer = get(down.test_client(), there.path)
    assert answer.status_code == 503
    assert "does not answer" in answer.text


def ask(url: str, headers: dict[str, str] | None = None) -> tuple[int, Any, bytes]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=PATIENCE)
    connection.request("GET", f"{parts.path}?{parts.query}", headers=headers or {})
    answer = connection.getresponse()
    found = answer.status, answer.headers, answer.read()
    connection.close()
    return found


# --- a real web process -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Web:
    port: int
    pid: int

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)

    def worker(self) -> psutil.Process:
        (worker,) = psutil.Process(self.pid).children()
        return worker


@pytest.fixture(scope="module")
def session_web(
    session_app: APIFlask, session_environ: dict[str, str], session_directory: Path
) -> Iterator[Web]:
    port = free_port()
    child = Child(
        "web",
        [str(Path(sys.executable).with_name("gunicorn")), "wsgi:app"],
        log=session_directory / "downloads-web.log",
        environ={**os.environ, **session_environ, "PORT": str(port), "WEB_CONCURRENCY": "1"},
    )
    child.start()
    try:
        child.wait_until(lambda: healthy(port), PATIENCE)
        yield Web(port, child.pid)
    finally:
        child.stop()


@pytest.fixture
def web(app: APIFlask, session_web: Web) -> Web:
    return session_web


def healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def test_one_connection_takes_heads_ranges_and_files(web: Web, published: Published) -> None:
    connection = web.connect()
    for method, headers, status, body in (
        ("HEAD", {}, 200, b""),
        ("GET", {"Range": "bytes=5-9"}, 206, CONTENT[5:10]),
        ("HEAD", {}, 200, b""),
        ("GET", {"Range": "bytes=99999999-"}, 416, b""),
        ("GET", {"If-None-Match": f'"{SHA256}"'}, 304, b""),
        ("GET", {}, 200, CONTENT),
    ):
        connection.request(method, published.path, headers=headers)
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (status, body)
        if method == "HEAD":
            assert answer.headers["Content-Length"] == str(len(CONTENT))
    connection.close()


def test_large_files_take_little_memory_and_let_others_through(app: APIFlask, web: Web, member: Any) -> None:
    large = publish(app, member, bytes(150 * MIB))
    healthy(web.port)
    before = web.worker().memory_info().rss
    sizes: list[int] = []
    amid, go_on = threading.Barrier(4), threading.Event()

    def read() -> None:
        sizes.append(read_all(web, large.path, lambda: (amid.wait(PATIENCE), go_on.wait(PATIENCE))))

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    amid.wait(PATIENCE)  # all three are at it, and the server waits for them to read on
    assert all(healthy(web.port) for _ in range(10))
    go_on.set()
    while any(thread.is_alive() for thread in threads):
        assert healthy(web.port)
    assert sizes == [150 * MIB] * 3
    assert web.worker().memory_info().rss - before < 30 * MIB


def read_all(web: Web, path: str, amid: Callable[[], object]) -> int:
    """How many bytes came; `amid` is called after the first of them."""
    connection = web.connect()
    connection.request("GET", path)
    answer = connection.getresponse()
    size = len(answer.read(MIB))
    amid()
    while block := answer.read(MIB):
        size += len(block)
    connection.close()
    return size


def test_a_client_that_hangs_up_leaves_no_open_file(app: APIFlask, web: Web, member: Any) -> None:
    large = publish(app, member, bytes(50 * MIB))
    with socket.create_connection(("127.0.0.1", web.port), timeout=PATIENCE) as client:
        client.sendall(f"GET {large.path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
        assert any(file.path.endswith(large.key) for file in web.worker().open_files())
    until(lambda: not any(file.path.endswith(large.key) for file in web.worker().open_files()))


# --- the receipt ------------------------------------------------------------------------------------------


def test_the_link_gives_the_receipt_too(app: APIFlask, client: FlaskClient, published: Published) -> None:
    receipt = {"rows": 1000, "params": {"word": "Zoë"}}
    published.change(app, receipt=receipt)
    answer = get(client, f"{published.path}/receipt")
    assert answer.json == receipt
    assert answer.mimetype == "application/json"
    assert parse_options_header(answer.headers["Content-Disposition"])[1] == {
        "filename": "all-tasks.csv.receipt.json"
    }
    assert answer.headers["Cache-Control"] == "private, no-store"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert published.downloads(app) == []


def test_a_link_that_is_over_gives_no_receipt(
    app: APIFlask, client: FlaskClient, published: Published
) -> None:
    published.change(app, link_revoked_at=datetime.now(UTC))
    assert get(client, f"{published.path}/receipt").status_code == 410
    assert get(client, "/d/nonsense/receipt").status_code == 404


def test_a_job_keeps_its_receipt_when_the_file_is_gone(
    app: APIFlask, auth: Any, member: Any, published: Published
) -> None:
    published.change(app, removed_at=datetime.now(UTC), receipt={"rows": 7})
    answer = get(auth.client_of(member), f"/jobs/{published.job_id}/receipt")
    assert (answer.status_code, answer.json) == (200, {"rows": 7})
