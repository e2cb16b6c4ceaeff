"""Files sent over the web: in pieces by programs and pages, in one go by plain forms; never held whole."""

from __future__ import annotations

import base64
import hashlib
import http.client
import io
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import psutil
import pytest
from apiflask import APIBlueprint, APIFlask
from flask.testing import FlaskClient
from flask_security import auth_required
from werkzeug.datastructures import FileStorage
from werkzeug.test import stream_encode_multipart

from app import uploads
from app.dev.child import free_port
from app.dev.stack import Stack
from app.extensions import db
from app.models import ApiToken, Upload, User
from app.uploads import BLOCK
from app.web.uploads import receive_form, takes_file, unlimited
from tests.waiting import PATIENCE, until

# Stands for the session's CSRF token.
CSRF = object()
PIECE = "application/offset+octet-stream"
TEXT = b"email,name\nann@example.org,Ann\n" * 100


@pytest.fixture
def bearer(app: APIFlask, member: Any) -> dict[str, str]:
    with app.app_context():
        _, secret = ApiToken.create(db.session.get_one(User, member.id), "test")
        db.session.commit()
    return {"Authorization": f"Bearer {secret}"}


@pytest.fixture
def api(client: FlaskClient, bearer: dict[str, str]) -> Callable[..., Any]:
    """api("PATCH", "/…", headers={…}, data=…): as a program with its token asks."""

    def ask(method: str, path: str = "", headers: dict[str, str] | None = None, **options: Any) -> Any:
        url = path if path.startswith("http") else f"/api/v1/uploads{path}"
        return client.open(url, method=method, headers=bearer | (headers or {}), **options)

    return ask


def begin(api: Callable[..., Any], **body: Any) -> str:
    answer = api("POST", json={"filename": "people.csv"} | body)
    assert answer.status_code == 201, answer.text
    assert answer.headers["Upload-Offset"] == "0"
    assert urlsplit(answer.headers["Location"]).path == f"/api/v1/uploads/{answer.json['id']}"
    return f"/{answer.json['id']}"


def piece(api: Callable[..., Any], path: str, offset: int, data: bytes, **headers: str) -> Any:
    told = {"Upload-Offset": str(offset), "Content-Type": PIECE}
    return api("PATCH", path, headers=told | headers, data=data)


def content(app: APIFlask, path: str) -> bytes:
    with app.app_context():
        return b"".join(uploads.open(db.session.get_one(Upload, UUID(path.removeprefix("/")))))


# --- in pieces --------------------------------------------------------------------------------------------


def test_from_nothing_to_a_complete_upload(app: APIFlask, api: Callable[..., Any]) -> None:
    path = begin(api, bytes=len(TEXT), sha256=hashlib.sha256(TEXT).hexdigest())
    sent = piece(api, path, 0, TEXT[:1000])
    assert (sent.status_code, sent.headers["Upload-Offset"], sent.json["offset"]) == (200, "1000", 1000)
    head = api("HEAD", path)
    assert (head.status_code, head.headers["Upload-Offset"], head.data) == (200, "1000", b"")
    assert head.headers["Cache-Control"] == "no-store"
    missing = api("POST", f"{path}/completion")
    assert (missing.status_code, missing.json["code"]) == (409, "wrong_offset")
    assert missing.headers["Upload-Offset"] == "1000"
    assert piece(api, path, 1000, TEXT[1000:]).status_code == 200
    done = api("POST", f"{path}/completion")
    assert (done.status_code, done.json["status"], done.json["bytes"]) == (200, "complete", len(TEXT))
    assert content(app, path) == TEXT
    assert api("POST", f"{path}/completion").status_code == 200
    more = piece(api, path, len(TEXT), b"x")
    assert (more.status_code, more.json["code"]) == (409, "conflict")


def test_a_piece_at_the_wrong_place(app: APIFlask, api: Callable[..., Any]) -> None:
    path = begin(api)
    piece(api, path, 0, TEXT)
    refused = piece(api, path, 5, TEXT)
    assert (refused.status_code, refused.json["code"]) == (409, "wrong_offset")
    assert refused.headers["Upload-Offset"] == str(len(TEXT))
    assert content(app, path) == TEXT


def test_a_piece_with_its_digest(app: APIFlask, api: Callable[..., Any]) -> None:
    path = begin(api)
    digest = base64.b64encode(hashlib.sha256(TEXT).digest()).decode()
    wrong = piece(api, path, 0, TEXT + b"x", **{"Content-Digest": f"sha-256=:{digest}:"})
    assert (wrong.status_code, wrong.json["code"]) == (400, "digest_mismatch")
    assert piece(api, path, 0, TEXT, **{"Content-Digest": f"sha-256=:{digest}:"}).json["offset"] == len(TEXT)
    assert content(app, path) == TEXT


@pytest.mark.parametrize("told", [None, "", "-1", "1.5", "five", "٣", "9" * 5000])
def test_a_piece_says_where_it_begins(api: Callable[..., Any], told: str | None) -> None:
    path = begin(api)
    headers = {"Content-Type": PIECE} | (
        {} if told is None else {"Upload-Offset": told.encode().decode("latin1")}
    )
    answer = api("PATCH", path, headers=headers, data=b"x")
    assert (answer.status_code, answer.json["code"]) == (400, "invalid_request")


def test_a_piece_is_bytes(api: Callable[..., Any]) -> None:
    path = begin(api)
    answer = api("PATCH", path, headers={"Upload-Offset": "0"}, json={})
    assert (answer.status_code, answer.json["code"]) == (415, "unsupported_media_type")
    answer = api("PATCH", path, headers={"Upload-Offset": "0"}, data={"file": (io.BytesIO(TEXT), "a.csv")})
    assert answer.status_code == 415


def test_what_is_too_large(api: Callable[..., Any], app: APIFlask) -> None:
    limit = app.config["WAYBILL"].upload_limit_bytes
    answer = api("POST", json={"filename": "a.csv", "bytes": limit + 1})
    assert (answer.status_code, answer.json["code"]) == (413, "upload_too_large")
    assert "5 GiB" in answer.json["detail"]
    path = begin(api)
    # It is said before a byte is read.
    headers = {"Upload-Offset": "0", "Content-Type": PIECE}
    told = {"CONTENT_LENGTH": str(limit + 1)}
    answer = api("PATCH", path, headers=headers, input_stream=io.BytesIO(), environ_overrides=told)
    assert (answer.status_code, answer.json["code"]) == (413, "upload_too_large")


@pytest.mark.parametrize(
    "body", [{}, {"filename": ""}, {"filename": "a", "bytes": -1}, {"filename": "a", "sha256": "x"}]
)
def test_what_does_not_make_sense(api: Callable[..., Any], body: dict[str, Any]) -> None:
    answer = api("POST", json=body)
    assert (answer.status_code, answer.json["code"]) == (422, "invalid_params")


def test_what_is_no_table(api: Callable[..., Any]) -> None:
    path = begin(api)
    piece(api, path, 0, b"%PDF-1.7 ...")
    answer = api("POST", f"{path}/completion")
    assert (answer.status_code, answer.json["code"]) == (422, "bad_file")
    assert "PDF" in answer.json["detail"]
    found = api("GET", path).json
    assert (found["status"], found["refusal"]) == ("refused", answer.json["detail"])
    assert found["removed_at"] is not None


def test_removing(api: Callable[..., Any]) -> None:
    path = begin(api)
    piece(api, path, 0, TEXT)
    assert api("DELETE", path).status_code == 204
    assert api("GET", path).json["removed_at"] is not None
    answer = piece(api, path, len(TEXT), TEXT)
    assert (answer.status_code, answer.json["code"]) == (410, "upload_gone")
    assert api("DELETE", path).status_code == 204


def test_a_session_needs_its_csrf_token(app: APIFlask, auth: Any, member: Any) -> None:
    client = auth.client_of(member)
    token = {"X-CSRFToken": auth.csrf(client)}
    assert client.post("/api/v1/uploads", json={"filename": "a.csv"}).status_code == 400
    path = client.post("/api/v1/uploads", json={"filename": "a.csv"}, headers=token).json["id"]
    headers = {"Upload-Offset": "0", "Content-Type": PIECE}
    refused = client.patch(f"/api/v1/uploads/{path}", headers=headers, data=TEXT)
    assert (refused.status_code, refused.json["code"]) == (400, "csrf")
    assert client.patch(f"/api/v1/uploads/{path}", headers=headers | token, data=TEXT).status_code == 200
    assert content(app, path) == TEXT


# --- forms ------------------------------------------------------------------------------------------------


@pytest.fixture
def forms(app_with: Callable[..., APIFlask]) -> APIFlask:
    """An app with a view that takes a form with a file."""
    app = app_with()
    blueprint = APIBlueprint("forms", __name__, enable_openapi=False)
    blueprint.url_value_preprocessor(unlimited)

    @blueprint.post("/forms")
    @auth_required("session")
    @takes_file
    def take() -> dict[str, Any]:
        form = receive_form()
        return {"fields": form.fields.to_dict(), "upload": form.upload and str(form.upload.id)}

    app.register_blueprint(blueprint)
    app.testing = True
    return app


@pytest.fixture
def form(forms: APIFlask, auth: Any, member: Any) -> Callable[..., Any]:
    """form({"csrf_token": …, "file": …}): what the signed-in member's browser posts."""
    client = forms.test_client()
    auth.sign_in(member, client=client)

    def post(fields: dict[str, Any], cut: int | None = None, **options: Any) -> Any:
        made = {name: auth.csrf(client) if value is CSRF else value for name, value in fields.items()}
        if "content_type" not in options:
            body, options["content_type"] = encoded(made)
            options["data"] = body[:cut]
        return client.post("/forms", **{"data": made} | options)

    return post


def encoded(fields: dict[str, Any]) -> tuple[bytes, str]:
    """The form as a browser sends it, and its type."""
    stream, length, boundary = stream_encode_multipart(fields, use_tempfile=False)
    return stream.read(length), f"multipart/form-data; boundary={boundary}"


def file(data: bytes = TEXT, name: str = "people.csv") -> FileStorage:
    return FileStorage(io.BytesIO(data), name)


def test_a_form_with_a_file(app: APIFlask, form: Callable[..., Any]) -> None:
    data = TEXT * (2 * BLOCK // len(TEXT))
    answer = form({"csrf_token": CSRF, "mode": "upsert", "file": file(data), "later": "ü"})
    assert answer.status_code == 200, answer.text
    fields = answer.json["fields"]
    assert (fields.pop("csrf_token") > "", fields) == (True, {"mode": "upsert", "later": "ü"})
    assert content(app, answer.json["upload"]) == data


def test_a_form_without_a_file(form: Callable[..., Any]) -> None:
    for chosen in ({}, {"file": file(b"", "")}):
        answer = form({"csrf_token": CSRF, "mode": "upsert"} | chosen)
        assert (answer.status_code, answer.json["upload"]) == (200, None)
    answer = form({"csrf_token": CSRF, "mode": "upsert"}, content_type="application/x-www-form-urlencoded")
    assert (answer.status_code, answer.json["fields"]["mode"]) == (200, "upsert")


@pytest.mark.parametrize(
    "fields",
    [
        {"file": file},
        {"csrf_token": "wrong", "file": file},
        {"file": file, "csrf_token": CSRF},
        {"csrf_token": "wrong"},
        {},
    ],
)
def test_a_form_proves_that_it_is_ours_before_its_file(
    app: APIFlask, form: Callable[..., Any], fields: dict[str, Any]
) -> None:
    answer = form({name: value() if value is file else value for name, value in fields.items()})
    assert answer.status_code == 400
    assert "too old" in answer.text
    with app.app_context():
        assert db.session.query(Upload).count() == 0


def test_a_form_of_another_kind_proves_it_too(form: Callable[..., Any]) -> None:
    answer = form({"mode": "upsert"}, content_type="application/x-www-form-urlencoded")
    assert answer.status_code == 400


@pytest.mark.parametrize("cut", [-5, -1000, 500, 100, 30, 0])
def test_a_form_that_is_cut_off(app: APIFlask, form: Callable[..., Any], cut: int) -> None:
    answer = form({"csrf_token": CSRF, "file": file()}, cut=cut)
    assert answer.status_code == 400
    with app.app_context():
        assert all(upload.removed_at for upload in db.session.query(Upload))


def test_a_form_without_a_boundary(form: Callable[..., Any]) -> None:
    assert form({"csrf_token": CSRF}, data=b"--x\r\n", content_type="multipart/form-data").status_code == 400


def test_a_form_with_a_file_that_is_no_table(form: Callable[..., Any]) -> None:
    answer = form({"csrf_token": CSRF, "file": file(b"%PDF-1.7", "a.pdf")})
    assert answer.status_code == 422
    assert "a.pdf is a PDF document" in answer.text


def test_a_form_with_two_files(app: APIFlask, form: Callable[..., Any]) -> None:
    answer = form({"csrf_token": CSRF, "file": file(), "other": file()})
    assert answer.status_code == 400
    with app.app_context():
        assert [upload.removed_at is None for upload in db.session.query(Upload)] == [False]


def test_a_form_with_long_fields(form: Callable[..., Any]) -> None:
    assert form({"csrf_token": CSRF, "note": "x" * 900_000}).status_code == 200
    assert form({"csrf_token": CSRF, "note": "x" * 1_100_000}).status_code == 413
    assert form({"csrf_token": CSRF} | {f"note{n}": "x" for n in range(600)}).status_code == 413


def test_other_forms_stay_short(app: APIFlask, auth: Any, member: Any) -> None:
    """What nobody asked for is not put down in /tmp."""
    client = auth.client_of(member)
    body, kind = encoded({"csrf_token": auth.csrf(client), "file": file(bytes(65 * 1024 * 1024))})
    assert client.post("/account/tokens", data=body, content_type=kind).status_code == 413


# --- over real connections --------------------------------------------------------------------------------


@pytest.fixture
def web(app: APIFlask, environ: dict[str, str], tmp_path: Path) -> Iterator[Stack]:
    """The web process itself, on the app's own database."""
    settings = environ | {"PORT": str(free_port()), "WEB_CONCURRENCY": "1"}
    found = Stack(settings, tmp_path, names=("web",))
    try:
        found.start()
        found.wait_ready()
        yield found
    finally:
        found.stop()


class Line:
    """A connection to the web process, by which an upload is begun and sent to."""

    def __init__(self, web: Stack, bearer: dict[str, str]) -> None:
        self.connection = http.client.HTTPConnection(urlsplit(web.base_url).netloc, timeout=PATIENCE)
        self.bearer = bearer

    def ask(self, method: str, path: str = "", data: Any = None, **headers: str) -> tuple[int, Any]:
        self.connection.request(method, f"/api/v1/uploads{path}", data, self.bearer | headers)
        answer = self.connection.getresponse()
        body = answer.read()
        return answer.status, json.loads(body) if body else None

    def begin(self) -> str:
        kind = {"Content-Type": "application/json"}
        status, upload = self.ask("POST", "", json.dumps({"filename": "people.csv"}), **kind)
        assert status == 201, upload
        return f"/{upload['id']}"

    def send(self, path: str, offset: int, data: Any, **headers: str) -> tuple[int, Any]:
        told = {"Upload-Offset": str(offset), "Content-Type": PIECE}
        return self.ask("PATCH", path, data, **told | headers)

    def offset(self, path: str) -> int:
        _, upload = self.ask("GET", path)
        return int(upload["offset"])


@pytest.fixture
def line(web: Stack, bearer: dict[str, str]) -> Iterator[Line]:
    found = Line(web, bearer)
    yield found
    found.connection.close()


def test_bytes_without_a_length(app: APIFlask, line: Line) -> None:
    path = line.begin()
    pieces = (TEXT for _ in range(5000))
    status, upload = line.send(path, 0, pieces)
    assert (status, upload["offset"]) == (200, 5000 * len(TEXT))
    assert upload["sha256"] == hashlib.sha256(TEXT * 5000).hexdigest()


def test_a_connection_that_breaks(app: APIFlask, line: Line) -> None:
    """What came before is kept, and the rest goes on from there."""
    path = line.begin()
    data = TEXT * (BLOCK // len(TEXT) + 1000)
    head = (
        f"PATCH /api/v1/uploads{path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {PIECE}\r\n"
        f"Authorization: {line.bearer['Authorization']}\r\n"
        f"Upload-Offset: 0\r\nContent-Length: {2 * len(data)}\r\n\r\n"
    )
    with socket.create_connection((line.connection.host, line.connection.port)) as broken:
        broken.sendall(head.encode() + data)
    until(lambda: line.offset(path) == len(data))
    assert line.send(path, len(data), data)[0] == 200
    assert content(app, path) == data * 2


def test_a_web_process_that_is_killed(app: APIFlask, web: Stack, line: Line) -> None:
    """Every full block outlives it."""
    path = line.begin()
    data = TEXT * (3 * BLOCK // len(TEXT))
    head = (
        f"PATCH /api/v1/uploads{path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {PIECE}\r\n"
        f"Authorization: {line.bearer['Authorization']}\r\n"
        f"Upload-Offset: 0\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    with socket.create_connection((line.connection.host, line.connection.port)) as sending:
        sending.sendall(head.encode() + data[: 2 * BLOCK + 1000])
        until(lambda: line.offset(path) == 2 * BLOCK)
        web["web"].kill()
    line.connection.close()
    web.revive()
    assert line.offset(path) == 2 * BLOCK
    assert line.send(path, 2 * BLOCK, data[2 * BLOCK :])[0] == 200
    assert line.ask("POST", f"{path}/completion")[0] == 200
    assert content(app, path) == data


@pytest.mark.slow
def test_memory_stays_flat(web: Stack, line: Line) -> None:
    """300 MB in pieces and in one go: the web process grows by less than a tenth of that."""
    web_process = psutil.Process(web["web"].pid)

    def memory() -> int:
        return sum(
            process.memory_info().rss for process in (web_process, *web_process.children(recursive=True))
        )

    path = line.begin()
    assert line.send(path, 0, bytes(BLOCK))[0] == 200
    before, most = memory(), 0
    block = TEXT * (1024 * 1024 // len(TEXT))

    def blocks() -> Iterator[bytes]:
        nonlocal most
        for _ in range(300):
            yield block
            most = max(most, memory())

    assert line.send(path, BLOCK, blocks())[0] == 200
    assert line.ask("POST", f"{path}/completion")[0] == 422  # it began with NULs
    assert most - before < 30 * 1024 * 1024
