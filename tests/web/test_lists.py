"""Lists of values as people and programs send them: on the form, in JSON, as a file."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
from flask.testing import FlaskClient

from app.extensions import db
from app.models import Job
from app.models.token import ApiToken

FIND = """
/*
title = "Find tasks"
description = "Tasks by number."
lookup = { param = "ids", column = "id" }
[params.ids]
type = "list"
items = "int"
required = true
[params.limit]
type = "int"
*/
SELECT id, title FROM tasks WHERE id = ANY(:ids) AND (:limit IS NULL OR id < :limit) ORDER BY id
"""
PLAIN = "application/x-www-form-urlencoded"
# Less than the half megabyte above which the test's client leaves a file open.
LONG = "id\n" + "\n".join(map(str, range(1, 80_001)))


@pytest.fixture(autouse=True)
def find(app: Any, demo: None, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.exporting import adder

    adder(app, tmp_path, monkeypatch)("find.sql", FIND)


@pytest.fixture
def signed_in(client: FlaskClient, auth: Any, member: Any) -> FlaskClient:
    auth.sign_in(member)
    return client


@pytest.fixture
def ask(auth: Any, signed_in: FlaskClient) -> Callable[..., Any]:
    """ask({"param.ids": "1"}): the form of the report, posted."""

    def post(fields: dict[str, Any], url: str = "/exports", kind: str = "multipart/form-data") -> Any:
        data = {"report": "find", "csrf_token": auth.csrf(signed_in), **fields}
        return signed_in.post(url, data=data, content_type=kind)

    return post


@pytest.fixture
def send(app: Any, client: FlaskClient, member: Any) -> Callable[..., Any]:
    """send("/exports", {...}, **{"params.ids": file}): a request of several parts, with a token."""
    with app.app_context():
        _, token = ApiToken.create(member, "test")
        db.session.commit()

    def post(path: str, body: Any, **parts: Any) -> Any:
        data = {"request": json.dumps(body), **parts}
        headers = {"Authorization": f"Bearer {token}"}
        if not parts:
            return client.post(f"/api/v1{path}", json=body, headers=headers)
        return client.post(f"/api/v1{path}", data=data, headers=headers, content_type="multipart/form-data")

    return post


def file(content: str | bytes, name: str = "list.csv") -> tuple[BytesIO, str]:
    return BytesIO(content.encode() if isinstance(content, str) else content), name


def params(app: Any) -> Any:
    with app.app_context():
        return db.session.scalar(db.select(Job.params))


# On the form.


def test_the_form_takes_a_file_beside_the_text(signed_in: FlaskClient) -> None:
    shown = signed_in.get("/reports/find").text
    assert 'enctype="multipart/form-data"' in shown
    assert 'type="file" id="param-ids-file" name="list-file.ids"' in shown
    assert "and what of the list was not found, in files of this format" in shown
    assert 'name="compression"' not in shown


def test_a_list_from_a_file(app: Any, ask: Callable[..., Any]) -> None:
    assert ask({"list-file.ids": file("Task,Id\na,5\nb,7\n"), "param.ids": "1"}).status_code == 303
    assert params(app) == {"ids": [5, 7], "limit": None}


def test_a_list_from_a_column_of_the_file(app: Any, ask: Callable[..., Any]) -> None:
    answer = ask({"list-file.ids": file("id,other\n5,6\n"), "list-column.ids": "Other"})
    assert answer.status_code == 303
    assert params(app)["ids"] == [6]


def test_a_pasted_list_of_a_megabyte(app: Any, ask: Callable[..., Any]) -> None:
    assert ask({"param.ids": LONG.removeprefix("id\n") + " " * 600_000}, kind=PLAIN).status_code == 303
    assert params(app)["ids"]["count"] == 80_000


def test_what_is_wrong_in_a_file_is_told_at_its_field(ask: Callable[..., Any]) -> None:
    answer = ask({"list-file.ids": file("1\nx\n")})
    assert answer.status_code == 422
    assert "Line 2: Enter a whole number" in answer.text
    assert 'aria-invalid="true"' in answer.text
    answer = ask({"list-file.ids": file(b"\x89PNG\0\0", "cat.png")})
    assert "This is no text" in answer.text


def test_a_list_is_not_lost_with_a_form_that_comes_back(app: Any, ask: Callable[..., Any]) -> None:
    answer = ask({"list-file.ids": file(LONG), "param.limit": "many"})
    assert answer.status_code == 422
    kept = re.search(r'name="list-kept.ids" value="([0-9a-f]{64}:80000)" checked', answer.text)
    assert kept
    assert "80,000 values given before" in answer.text
    assert ask({"list-kept.ids": kept[1], "param.limit": "5"}).status_code == 303
    assert params(app)["ids"] == {"sha256": kept[1].partition(":")[0], "count": 80_000}


def test_short_lists_of_a_file_come_back_as_text(ask: Callable[..., Any]) -> None:
    answer = ask({"list-file.ids": file("5\n7\n"), "param.limit": "many"})
    assert re.search(r'name="param.ids"[^>]*>5\n7</textarea>', answer.text)


def test_a_kept_list_that_is_none(ask: Callable[..., Any]) -> None:
    for kept in ("x", "x:5", f"{'0' * 64}:5", f"{'0' * 64}:99999999999", f"{'0' * 64}:{'9' * 5000}"):
        answer = ask({"list-kept.ids": kept})
        assert answer.status_code == 422
        assert "Fill this in" in answer.text or "not kept any more" in answer.text


def test_the_same_list_again_from_the_job(app: Any, ask: Callable[..., Any], signed_in: FlaskClient) -> None:
    job = ask({"list-file.ids": file(LONG)}).headers["Location"].rpartition("/")[2]
    assert "80,000 values" in signed_in.get(f"/jobs/{job}").text
    assert 'name="list-kept.ids"' in signed_in.get(f"/reports/find?job={job}").text


def test_a_forecast_with_a_file(ask: Callable[..., Any]) -> None:
    answer = ask({"list-file.ids": file(LONG), "sample": "1"}, "/reports/find/preflight")
    assert answer.status_code == 200
    assert "80,000 values given before" in answer.text
    assert '<th scope="col">title</th>' in answer.text
    assert ask({"list-file.ids": file("x\ny")}, "/reports/find/preflight").status_code == 422


def test_the_job_page_tells_of_the_files(app: Any, ask: Callable[..., Any], signed_in: FlaskClient) -> None:
    from tests.exporting import attempt

    page = ask({"param.ids": "1, 2, 999999999"}).headers["Location"]
    with app.app_context():
        assert attempt(db.session.scalar(db.select(Job.id))).status == "succeeded"
    shown = " ".join(signed_in.get(page).text.split())
    assert '<dt>Not found</dt><dd class="num">1 of 3</dd>' in shown
    assert '<th scope="row">find.csv</th><td class="num">2</td>' in shown
    assert '<th scope="row">not_found.csv</th><td class="num">1</td>' in shown
    assert "2 files" in shown


# In the API.


def test_a_long_array(app: Any, send: Callable[..., Any]) -> None:
    answer = send("/exports", {"report": "find", "params": {"ids": list(range(200_000))}})
    assert answer.status_code == 202
    assert answer.json["params"]["ids"] == params(app)["ids"]
    assert answer.json["params"]["ids"]["count"] == 200_000
    again = send("/exports", {"report": "find", "params": answer.json["params"], "fresh": True})
    assert again.json["params"] == answer.json["params"]


def test_a_file_as_a_part(app: Any, send: Callable[..., Any]) -> None:
    answer = send("/exports", {"report": "find"}, **{"params.ids": file("a,b\n1,2\n"), "column.ids": "b"})
    assert answer.status_code == 202, answer.json
    assert params(app)["ids"] == [2]
    assert answer.json["compression"] == "zip"
    answer = send("/reports/find/preflight", {"sample": True}, **{"params.ids": file("1\n2\n")})
    assert answer.status_code == 200, answer.json
    assert answer.json["sample"]["columns"] == ["id", "title"]


@pytest.mark.parametrize(
    ("body", "parts", "status", "words"),
    [
        ({"report": "find"}, {"params.ids": "1\ny"}, 422, "Line 2"),
        ({"report": "find"}, {"params.limit": "5"}, 422, "no list of this name"),
        ({"report": "find"}, {"params.idz": "5"}, 422, "no list of this name"),
        ({"report": "find"}, {"ids": "5"}, 400, "no part"),
        ({"report": "members"}, {"params.ids": "5"}, 404, "no report"),
        ([], {"params.ids": "5"}, 422, ""),
        ({"report": "find", "params": 5}, {"params.ids": "5"}, 422, ""),
    ],
)
def test_parts_that_are_no_request(
    send: Callable[..., Any], body: Any, parts: dict[str, str], status: int, words: str
) -> None:
    answer = send("/exports", body, **{name: file(content) for name, content in parts.items()})
    assert answer.status_code == status, answer.json
    assert words in answer.json["detail"]


def test_the_parts_need_their_json(send: Callable[..., Any]) -> None:
    answer = send("/exports", {}, **{"params.ids": file("5"), "request": "{"})
    assert answer.status_code == 400
    assert "'request'" in answer.json["detail"]


def test_strangers_have_no_room_for_lists(client: FlaskClient) -> None:
    body = json.dumps({"report": "find", "params": {"ids": ["x" * 100] * 20_000}})
    assert client.post("/api/v1/exports", data=body, content_type="application/json").status_code in (
        401,
        413,
    )


def test_a_report_of_several_files_says_so(
    send: Callable[..., Any], client: FlaskClient, auth: Any, member: Any
) -> None:
    auth.sign_in(member)
    told: Any = client.get("/api/v1/reports/campaign_export").json
    assert told["bundled"] is True
    assert {tuple(found["compressions"]) for found in told["formats"]} == {("zip",)}
    assert told["columns"] is None
    refused = send("/exports", {"report": "campaign_export", "compression": "gzip"})
    assert refused.status_code == 400
    assert "one zip archive" in refused.json["detail"]
