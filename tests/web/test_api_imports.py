"""Imports over the API. test_api.py has what holds for all of it."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select, update

from app import uploads
from app.extensions import db
from app.models import User
from app.models.imports import Import
from app.models.job import Job

from .test_api import Api, valid

FILE = (
    b"email,name,company,joined\nann@example.org,Ann,Acme,2026-01-31\nbob@example.org,Bob,Acme,2026-02-28\n"
)


class Imports:
    """The API of imports as a program sees it."""

    def __init__(self, api: Api) -> None:
        self.api = api

    def upload(self, content: bytes = FILE) -> str:
        with self.api.app.app_context():
            user = db.session.get_one(User, self.api.user.id)
            upload = uploads.receive(uploads.begin(user, "members.csv"), 0, BytesIO(content))
            return str(uploads.complete(upload).id)

    def create(self, headers: dict[str, str] | None = None, **body: Any) -> Any:
        given = {"importer": "members", "upload": body.pop("upload", None) or self.upload()} | body
        return self.api.post("/imports", json=given, headers=headers or {})

    def end(self, job_id: str, status: str, **found: Any) -> None:
        with self.api.app.app_context():
            job = db.session.get_one(Job, UUID(job_id))
            at = func.clock_timestamp()
            ended = {"status": status, "started_at": at, "finished_at": at}
            db.session.execute(update(Job).where(Job.id == job.id).values(**ended))
            if found:
                db.session.execute(update(Import).where(Import.id == job.import_id).values(**found))
            db.session.commit()


@pytest.fixture
def api(app, client, member) -> Api:
    return Api(app, client, member)


@pytest.fixture
def imports(api) -> Imports:
    return Imports(api)


def test_importers_are_described(api):
    items = api.get("/importers").json["items"]
    members = next(item for item in items if item["key"] == "members")
    assert api.get("/importers/members").json == members
    company = next(column for column in members["columns"] if column["name"] == "company_id")
    assert company["references"] == "companies.name"
    assert members["natural_key"] == ["email"]
    assert api.get("/importers/nope").status_code == 404


def test_an_upload_becomes_a_job(api, imports):
    answer = imports.create(step="dry-run")
    assert answer.status_code == 202, answer.text
    assert answer.headers["Location"].endswith(f"/api/v1/jobs/{answer.json['id']}")
    assert answer.json["kind"] == "import"
    assert answer.json["import"]["step"] == "dry-run"
    valid(api.document, {"$ref": "#/components/schemas/Job"}, answer.json)
    found = api.get(f"/imports/{answer.json['import']['id']}")
    valid(api.document, {"$ref": "#/components/schemas/Import"}, found.json)
    assert found.json["mapping"]["email"] == 0
    assert found.json["jobs"] == [{"id": answer.json["id"], "step": "dry-run", "status": "queued"}]
    assert api.get("/imports").json["items"] == [found.json]
    assert api.get("/jobs").json["items"][0]["import"] == answer.json["import"]


def test_a_file_may_come_along(api):
    fields = {
        "importer": "members",
        "mode": "insert",
        "step": "apply",
        "mapping": json.dumps({"role": "name", "name": "email"}),
        "dialect": json.dumps({"dates": "iso"}),
        "rate": "100",
        "file": (BytesIO(FILE), "members.csv"),
    }
    answer = api.post("/imports", data=fields | {"mapping": json.dumps({"active": None})})
    assert answer.status_code == 202, answer.text
    found = api.get(f"/imports/{answer.json['import']['id']}").json
    assert (found["mode"], found["rate"], found["reject_limit"]) == ("insert", 100, 1000)
    assert found["mapping"]["active"] is None
    assert found["filename"] == "members.csv"


@pytest.mark.parametrize(
    ("body", "status", "name"),
    [
        ({"importer": "nope"}, 404, None),
        ({"importer": None}, 422, "importer"),
        ({"upload": "5b0d3a52-6f43-4b9e-8f0e-0d6d3f6f7f21"}, 404, None),
        ({"upload": "x"}, 422, "upload"),
        ({"mode": "replace"}, 422, "mode"),
        ({"step": "undo"}, 422, "step"),
        ({"mapping": {"nope": 0}}, 422, "mapping"),
        ({"mapping": {"email": "Nope"}}, 422, "mapping.email"),
        ({"mapping": {"email": None}}, 422, "mapping"),
        ({"dialect": {"delimiter": ""}}, 422, "dialect.delimiter"),
        ({"reject_percent": 1000}, 422, "reject_percent"),
        ({"colour": "red"}, 422, "colour"),
    ],
)
def test_wrong_values_are_told_by_name(api, imports, body, status, name):
    answer = imports.create(**body)
    assert answer.status_code == status, answer.text
    assert answer.mimetype == "application/problem+json"
    if name:
        assert name in answer.json["errors"]
    with api.app.app_context():
        assert not db.session.scalar(select(func.count()).select_from(Job))


@pytest.mark.parametrize(
    ("data", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"[]", "application/json", 422),
        (b"[" * 100_000, "application/json", 400),
        (b"x", "text/plain", 415),
        (b" " * 1024 * 1024 + b" ", "application/json", 413),
        (b"--x--", "multipart/form-data; boundary=x", 422),
        (b"x", "multipart/form-data", 400),
    ],
)
def test_bodies_that_are_no_request(api, data, kind, status):
    assert api.post("/imports", data=data, content_type=kind).status_code == status


@pytest.mark.parametrize("name", ["dates", "decimal", "encoding", "delimiter", "zone", "member"])
@pytest.mark.parametrize("value", [[], {}, ["iso"], {"iso": 1}, 1.5])
def test_a_member_of_a_dialect_of_another_type_is_told_so(api, name, value):
    given = {"importer": "members", "file": (BytesIO(FILE), "a.csv"), "dialect": json.dumps({name: value})}
    answer = api.post("/imports", data=given)
    assert f"dialect.{name}" in answer.json["errors"], answer.text


def test_a_body_that_is_no_object_is_told_so(api):
    answer = api.post("/imports", data=b"[]", content_type="application/json")
    assert answer.json["errors"] == {"body": "Send a JSON object."}


def test_a_file_that_is_none_is_refused(api):
    answer = api.post("/imports", data={"importer": "members", "file": (BytesIO(b"%PDF-1.7"), "a.pdf")})
    assert answer.status_code == 422
    assert "PDF" in answer.json["detail"]


def test_the_same_key_and_body_give_the_same_job(imports):
    upload = imports.upload()
    first = imports.create(headers={"Idempotency-Key": "monday"}, upload=upload)
    again = imports.create(headers={"Idempotency-Key": "monday"}, upload=upload)
    assert again.json["id"] == first.json["id"]
    assert again.headers["Idempotent-Replay"] == "true"
    other = imports.create(headers={"Idempotency-Key": "monday"}, upload=upload, mode="insert")
    assert other.status_code == 409


def test_steps_follow_each_other(api, imports):
    job = imports.create(step="dry-run").json
    url = f"/imports/{job['import']['id']}"
    assert api.post(f"{url}/jobs", json={"step": "apply"}).status_code == 409
    example = {"line": 2, "key": {"email": "ann@example.org"}, "changes": {"name": ["A", "Ann"]}}
    imports.end(job["id"], "succeeded", forecast={"read": 2, "updated": 2, "examples": [example]})
    assert api.get(f"/jobs/{job['id']}").json["import"]["counts"] == {"read": 2, "updated": 2}
    found = api.get(url).json
    assert found["forecast"]["updated"] == 2
    assert found["examples"] == [example]
    applied = api.post(f"{url}/jobs", json={"step": "apply"})
    assert applied.status_code == 202
    imports.end(applied.json["id"], "succeeded", result={"read": 2, "updated": 2})
    assert api.post(f"{url}/jobs", json={"step": "apply"}).status_code == 409
    undone = api.post(f"{url}/jobs", json={"step": "undo"})
    assert undone.status_code == 202
    assert [each["step"] for each in api.get(url).json["jobs"]] == ["dry-run", "apply", "undo"]
    assert api.post(f"{url}/jobs", json={"step": "again"}).status_code == 422


def test_pause_and_resume(api, imports):
    job = imports.create().json["id"]
    paused = api.post(f"/jobs/{job}/pause")
    assert paused.status_code == 202
    assert paused.json["import"]["paused_at"]
    assert api.post(f"/jobs/{job}/pause").status_code == 409
    resumed = api.post(f"/jobs/{job}/resumption")
    assert resumed.json["import"]["paused_at"] is None
    assert api.post(f"/jobs/{job}/resumption").status_code == 409
    export = api.export().json["id"]
    assert api.post(f"/jobs/{export}/pause").status_code == 409


def test_refused_rows_come_back_under_their_parent(api, imports):
    job = imports.create(mode="insert").json
    parent = job["import"]["id"]
    child = imports.create(importer=None, parent=parent)
    assert child.status_code == 202, child.text
    found = api.get(f"/imports/{child.json['import']['id']}").json
    assert (found["parent"], found["mode"], found["importer"]) == (parent, "insert", "members")


def test_others_imports_are_not_there(api, imports, other):
    job = imports.create().json
    stranger = Api(api.app, api.client, other)
    url = f"/imports/{job['import']['id']}"
    assert stranger.get(url).status_code == 404
    assert stranger.post(f"{url}/jobs", json={"step": "apply"}).status_code == 404
    assert stranger.post(f"/jobs/{job['id']}/pause").status_code == 404
    assert stranger.get("/imports").json["items"] == []
    # Nor may an upload or a parent of somebody else's be named.
    mine = {"importer": "members", "upload": imports.upload()}
    assert stranger.post("/imports", json=mine).status_code == 404


def test_pages_follow_each_other(api, imports):
    upload = imports.upload()
    made = [imports.create(upload=upload).json["import"]["id"] for _ in range(3)]
    first = api.get("/imports?limit=2").json
    second = api.get(first["next"].partition("/api/v1")[2]).json
    assert [item["id"] for item in first["items"] + second["items"]] == made[::-1]
    assert second["next"] is None


def test_the_list_of_jobs_asks_as_often_for_many_imports(api, imports, statements):
    upload = imports.upload()
    for _ in range(4):
        imports.create(upload=upload)
    statements.clear()
    api.get("/jobs?limit=1")
    short = len(statements)
    api.get("/jobs")
    assert len(statements) == 2 * short
