"""The API keeps what its own document promises; the document leaves nothing out."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from typing import Any
from uuid import uuid4

import pytest
from jsonschema import Draft202012Validator, FormatChecker
from openapi_spec_validator import OpenAPIV31SpecValidator
from referencing import Registry
from referencing.jsonschema import DRAFT202012
from sqlalchemy import update

from app import jobs, leases
from app.extensions import db
from app.models.artifact import Artifact
from app.models.job import Job
from app.models.token import ApiToken
from app.web.api import bodies

EXPORT = {"report": "all_tasks", "params": {"status": "open"}}


@pytest.fixture
def api(app, client, member):
    return Api(app, client, member)


class Api:
    """A caller with a token, who checks every answer against the document."""

    def __init__(self, app, client, user):
        self.app, self.client, self.user = app, client, user
        with app.app_context():
            _, self.token = ApiToken.create(user, "test")
            db.session.commit()
        self.document = client.get("/api/v1/openapi.json").json

    def get(self, path, **options):
        return self.ask("GET", path, **options)

    def post(self, path, **options):
        return self.ask("POST", path, **options)

    def ask(self, method, path, headers=None, **options):
        headers = {"Authorization": f"Bearer {self.token}", **(headers or {})}
        answer = self.client.open(f"/api/v1{path}", method=method, headers=headers, **options)
        check(self.document, method, answer)
        return answer

    def export(self, **body):
        return self.post("/exports", json=EXPORT | body)

    def run(self, job_id):
        """What a worker does."""
        from app import exports

        with self.app.app_context():
            lease = leases.claim(job_id)
            assert lease is not None
            exports.run(lease)


def check(document: dict[str, Any], method: str, answer: Any) -> None:
    """The answer has a documented status, type and shape, and no header or member that is not promised."""
    rule = answer.request.path
    promised = operation_of(document, method, rule)["responses"]
    assert str(answer.status_code) in promised, f"{method} {rule} answers {answer.status_code}: {answer.text}"
    spoken = promised[str(answer.status_code)]
    for name in ("Location", "Link", "Idempotent-Replay", "Retry-After"):
        assert name not in answer.headers or name in spoken.get("headers", {})
    if answer.status_code in (204, 304):
        return
    assert answer.mimetype in spoken["content"]
    valid(document, spoken["content"][answer.mimetype]["schema"], answer.json)


def operation_of(document, method, path):
    for template, methods in document["paths"].items():
        wanted, given = template.split("/"), path.split("/")
        same = (part == other or part.startswith("{") for part, other in zip(wanted, given, strict=False))
        if len(wanted) == len(given) and all(same) and method.lower() in methods:
            return methods[method.lower()]
    raise AssertionError(f"{method} {path} is not documented")


def valid(document, schema, value):
    """As the document says, and nothing beyond it."""
    strict = deepcopy(document)
    for shape in strict["components"]["schemas"].values():
        if shape["type"] == "object":
            shape["additionalProperties"] = False
    registry = Registry[Any]().with_resource("urn:api", DRAFT202012.create_resource(strict))
    pointed = json.loads(json.dumps(schema).replace('"#/', '"urn:api#/'))
    Draft202012Validator(pointed, registry=registry, format_checker=FormatChecker()).validate(value)


# The document.


def test_the_document_is_valid_openapi(api):
    OpenAPIV31SpecValidator(api.document).validate()


def test_every_route_is_documented_and_nothing_else(api):
    served = {
        (
            method.lower(),
            rule.rule.replace("<uuid:id>", "{id}").replace("<uuid:job_id>", "{id}").replace("<key>", "{key}"),
        )
        for rule in api.app.url_map.iter_rules()
        if rule.rule.startswith("/api/") and rule.endpoint not in ("api.openapi", "api.docs")
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    documented = {(method, path) for path, methods in api.document["paths"].items() for method in methods}
    assert served == documented


def test_every_example_has_the_documented_shape(api):
    for methods in api.document["paths"].values():
        for operation in methods.values():
            contents = [answer.get("content", {}) for answer in operation["responses"].values()]
            contents.append(operation.get("requestBody", {}).get("content", {}))
            for content in (each for found in contents for each in found.values()):
                if "example" in content:
                    valid(api.document, content["schema"], content["example"])


def test_every_operation_says_who_may_use_it_and_what_it_does(api):
    for methods in api.document["paths"].values():
        for method, operation in methods.items():
            session = ["session"] if method == "get" else ["session", "csrf"]
            assert operation["security"] == [{"token": []}, {name: [] for name in session}]
            assert operation["summary"]
            assert operation["operationId"]
            assert all(parameter["description"] for parameter in operation["parameters"])


def test_the_document_needs_no_sign_in_and_is_revalidated(client):
    answer = client.get("/api/v1/openapi.json")
    assert answer.status_code == 200
    assert answer.json["openapi"].startswith("3.1")
    again = client.get("/api/v1/openapi.json", headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status_code == 304


def test_the_page_of_docs_shows_every_operation_without_inline_script_or_style(api):
    page = api.client.get("/api/v1/docs")
    assert page.status_code == 200
    for path, methods in api.document["paths"].items():
        assert path in page.text
        assert all(operation["summary"] in page.text.replace("&#39;", "'") for operation in methods.values())
    assert "curl" in page.text
    assert " style=" not in page.text
    assert "<style" not in page.text
    assert page.text.count("<script") == page.text.count('<script type="module" src="')


# Reports.


def test_reports_are_those_a_person_may_export(api, app, admin):
    keys = [report["key"] for report in api.get("/reports").json["items"]]
    assert "all_tasks" in keys
    assert "members" not in keys
    assert "members" in [
        report["key"] for report in Api(app, app.test_client(), admin).get("/reports").json["items"]
    ]


def test_a_report_tells_its_params_columns_roles_and_formats(api):
    report = api.get("/reports/all_tasks").json
    Draft202012Validator.check_schema(report["params"])
    assert report["params"]["properties"]["status"]["type"] == ["string", "null"]
    assert report["roles"] == ["member", "admin"]
    csv = next(format for format in report["formats"] if format["name"] == "csv")
    assert csv["dialects"][0] == "machine"
    assert csv["compressions"] == ["none", "gzip", "zip"]
    assert report["url"] == "http://127.0.0.1:8000/reports/all_tasks"


@pytest.mark.parametrize("key", ["nope", "members"])
def test_a_report_that_is_not_there_or_not_theirs(api, key):
    answer = api.get(f"/reports/{key}")
    assert answer.status_code == 404
    assert answer.json["code"] == "not_found"


# Asking for an export.


def test_an_export_answers_with_a_queued_job(api):
    answer = api.export()
    assert answer.status_code == 202
    job = answer.json
    assert answer.headers["Location"] == f"http://127.0.0.1:8000/api/v1/jobs/{job['id']}"
    assert (job["kind"], job["status"], job["attempt"]) == ("export", "queued", 0)
    assert job["progress"] == {"done": 0, "total": None, "unit": "rows"}
    assert job["params"]["status"] == "open"
    assert (job["format"], job["dialect"], job["compression"]) == ("csv", "machine", "none")
    assert job["error"] is None
    assert job["artifact"] is None
    assert job["created_at"].endswith("Z")
    assert api.get(f"/jobs/{job['id']}").json == job


def test_an_export_runs_to_a_file_whose_link_needs_no_session(api, demo):
    job = api.export(compression="gzip", dialect="machine").json
    api.run(job["id"])
    done = api.get(f"/jobs/{job['id']}").json
    assert done["status"] == "succeeded"
    assert done["artifact"]["filename"].endswith(".csv.gz")
    assert done["artifact"]["rows"] == done["progress"]["done"] > 0
    link = done["artifact"]["url"]
    fetched = api.app.test_client().get(link.removeprefix("http://127.0.0.1:8000"))
    assert fetched.status_code == 200
    assert len(fetched.data) == done["artifact"]["bytes"]


def test_a_failed_job_says_why(api, demo):
    job_id = api.export().json["id"]
    with api.app.app_context():
        db.session.execute(update(Job).values(definition="gone"))
        db.session.commit()
    api.run(job_id)
    job = api.get(f"/jobs/{job_id}").json
    assert job["status"] == "failed"
    assert job["error"]["code"] == "not_found"
    assert "gone" in job["error"]["message"]


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({"params": {"status": "lost", "since": "soon"}}, {"status", "since"}),
        ({"params": {"nope": 1}}, {"nope"}),
        ({"params": {"since": "2025-01-01\0"}}, {"since"}),
        ({"report": 7}, {"report"}),
        ({"format": None}, {"format"}),
        ({"fresh": "yes"}, {"fresh"}),
        ({"compression": ["gzip"]}, {"compression"}),
        ({"colour": "red"}, {"colour"}),
        ({"params": []}, {"params"}),
    ],
)
def test_wrong_values_are_told_by_name(api, body, names):
    answer = api.export(**body)
    assert answer.status_code == 422
    assert answer.json["errors"].keys() == names
    assert api.get("/jobs").json["items"] == []


@pytest.mark.parametrize(
    ("body", "told"),
    [({"format": "docx"}, "csv"), ({"dialect": "klingon"}, "machine"), ({"compression": "rar"}, "gzip")],
)
def test_what_the_format_does_not_have_is_told_with_what_it_has(api, body, told):
    answer = api.export(**body)
    assert answer.status_code == 400
    assert told in answer.json["detail"]


def test_fresh_is_taken(api):
    assert api.export(fresh=True).json["id"] != api.export(fresh=True).json["id"]


@pytest.mark.parametrize(
    ("data", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"", "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'{"report": "\\ud800"}', "application/json", 422),
        (b"[]", "application/json", 422),
        (b"null", "application/json", 422),
        (b'{"report": ' + b"9" * 5000 + b"}", "application/json", 400),
        (b"report=all_tasks", "application/x-www-form-urlencoded", 415),
        (b"--x--", "multipart/form-data; boundary=x", 400),
        (b"{}", "text/plain", 415),
        (b"{}", None, 415),
        (b" " * (bodies.LIMIT + 1), "application/json", 413),
        (b"x=" + b"x" * bodies.LIMIT, "application/x-www-form-urlencoded", 413),
    ],
)
def test_bodies_that_are_no_request(api, data, kind, status):
    answer = api.post("/exports", data=data, content_type=kind)
    assert answer.status_code == status, answer.text
    assert answer.json["status"] == status
    assert answer.json["detail"]


@pytest.mark.parametrize("kind", ["reports", "importers"])
@pytest.mark.parametrize("key", ["nothing_like_it", "membrs"])
def test_what_there_is_for_others_is_not_named(app, api, kind, key):
    """`members` is a report of administrators alone."""
    said = api.get(f"/{kind}/{key}").json["detail"]
    assert key in said
    named = set(re.findall(r"[a-z_]+", said.partition("'.")[2]))
    mine = {item["key"] for item in api.get(f"/{kind}").json["items"]}
    assert named & {member.key for member in app.extensions[f"waybill.{kind}"]} <= mine


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"report":\n "all_tasks",}', "not JSON: .*, line 2, column"),
        (b'{"report": "' + b"\xff" + b'"}', "not JSON: .* UTF-8"),
        (b"[]", "body: Send a JSON object"),
        (b'"all_tasks"', "body: Send a JSON object"),
    ],
)
def test_what_is_wrong_with_a_body_is_said(api, data, said):
    assert re.search(said, api.post("/exports", data=data, content_type="application/json").json["detail"])


def test_an_endless_body_is_cut_off(api):
    """Without a Content-Length the server counts for itself."""
    from io import BytesIO

    answer = api.post(
        "/exports",
        input_stream=BytesIO(b" " * (bodies.LIMIT + 1)),
        content_type="application/json",
        headers={"Transfer-Encoding": "chunked"},
        environ_overrides={"wsgi.input_terminated": True},
    )
    assert answer.status_code == 413


# Asking twice.


def test_the_same_key_and_body_give_the_same_job(api):
    first = api.post("/exports", json=EXPORT, headers={"Idempotency-Key": "monday"})
    second = api.post("/exports", json=EXPORT, headers={"Idempotency-Key": "monday"})
    assert first.json["id"] == second.json["id"]
    assert (first.status_code, second.status_code) == (202, 202)
    assert "Idempotent-Replay" not in first.headers
    assert second.headers["Idempotent-Replay"] == "true"
    assert second.headers["Location"] == first.headers["Location"]
    assert len(api.get("/jobs").json["items"]) == 1


def test_the_same_key_with_another_body_is_refused(api):
    api.post("/exports", json=EXPORT, headers={"Idempotency-Key": "monday"})
    answer = api.post("/exports", json={"report": "all_tasks"}, headers={"Idempotency-Key": "monday"})
    assert answer.status_code == 409
    assert "Idempotency-Key" in answer.json["detail"]


def test_keys_are_a_person_s_own(api, app, other):
    mine = api.post("/exports", json=EXPORT, headers={"Idempotency-Key": "monday"}).json["id"]
    theirs = Api(app, app.test_client(), other).post(
        "/exports", json=EXPORT, headers={"Idempotency-Key": "monday"}
    )
    assert theirs.json["id"] != mine


@pytest.mark.parametrize("key", ["", "x" * 201, "with space"])
def test_a_key_that_is_no_key(api, key):
    answer = api.post("/exports", json=EXPORT, headers={"Idempotency-Key": key})
    assert answer.status_code == 422
    assert answer.json["errors"].keys() == {"Idempotency-Key"}


# Looking, cancelling, trying again.


def test_a_job_that_has_not_changed_is_not_sent_again(api):
    url = f"/jobs/{api.export().json['id']}"
    first = api.get(url)
    assert first.headers["Cache-Control"] == "private, no-cache"
    assert api.get(url, headers={"If-None-Match": first.headers["ETag"]}).status_code == 304
    api.post(f"{url}/cancellation")
    assert api.get(url, headers={"If-None-Match": first.headers["ETag"]}).status_code == 200


def test_cancelling_and_trying_again(api):
    url = f"/jobs/{api.export().json['id']}"
    cancelled = api.post(f"{url}/cancellation")
    assert cancelled.status_code == 202
    assert cancelled.json["status"] == "cancelled"
    assert cancelled.headers["Location"].endswith(url)
    assert api.post(f"{url}/cancellation").status_code == 409
    retried = api.post(f"{url}/retry")
    assert retried.status_code == 202
    assert retried.json["status"] == "queued"
    assert api.post(f"{url}/retry").status_code == 409


@pytest.mark.parametrize("suffix", ["", "/events", "/log"])
def test_others_jobs_are_not_there(api, app, other, suffix):
    url = f"/jobs/{api.export().json['id']}{suffix}"
    stranger = Api(app, app.test_client(), other)
    assert stranger.get(url).status_code == 404
    assert stranger.get(f"/jobs/{uuid4()}{suffix}").status_code == 404


@pytest.mark.parametrize("verb", ["cancellation", "retry"])
def test_others_jobs_are_not_theirs_to_change(api, app, other, verb):
    url = f"/jobs/{api.export().json['id']}"
    assert Api(app, app.test_client(), other).post(f"{url}/{verb}").status_code == 404
    assert api.get(url).json["status"] == "queued"


def test_the_log_can_be_read_in_pieces(api):
    url = f"/jobs/{api.export().json['id']}"
    lines = api.get(f"{url}/log").json["items"]
    assert [line["number"] for line in lines] == [*range(1, len(lines) + 1)]
    assert api.get(f"{url}/log?after={len(lines)}").json["items"] == []


def test_the_stream_is_as_documented(api):
    url = f"/api/v1/jobs/{api.export().json['id']}"
    api.post(f"{url.removeprefix('/api/v1')}/cancellation")
    headers = {"Authorization": f"Bearer {api.token}"}
    stream = api.client.get(f"{url}/events", headers=headers)
    assert stream.mimetype == "text/event-stream"
    events = [
        dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        for block in stream.text.split("\n\n")
    ]
    lines = [json.loads(event["data"]) for event in events if event.get("event") == "log"]
    for line in lines:
        valid(api.document, {"$ref": "#/components/schemas/Line"}, line)
    again = api.client.get(f"{url}/events", headers=headers | {"Last-Event-ID": str(lines[-1]["number"])})
    assert again.status_code == 204


# The list.


def test_pages_follow_each_other_and_name_the_next(api):
    made = [api.export().json["id"] for _ in range(5)]
    seen, url = [], "/jobs?limit=2"
    while url:
        page = api.get(url)
        seen += [job["id"] for job in page.json["items"]]
        following = page.json["next"]
        assert page.headers.get("Link") == (following and f'<{following}>; rel="next"')
        url = following and following.removeprefix("http://127.0.0.1:8000/api/v1")
    assert seen == made[::-1]


def test_the_next_page_keeps_the_filter(api):
    for _ in range(3):
        api.post(f"/jobs/{api.export().json['id']}/cancellation")
    api.export()
    page = api.get("/jobs?status=cancelled&limit=2").json
    assert {job["status"] for job in page["items"]} == {"cancelled"}
    assert "status=cancelled" in page["next"]
    assert "limit=2" in page["next"]


@pytest.mark.parametrize(
    "query", ["status=lost", "limit=0", "limit=201", "limit=x", "page=2", "everyone=perhaps"]
)
def test_a_wrong_query(api, query):
    answer = api.get(f"/jobs?{query}")
    assert answer.status_code == 422
    assert answer.json["errors"].keys() == {query.partition("=")[0]}


@pytest.mark.parametrize("cursor", ["x", "%00", "AAAA", "é"])
def test_a_wrong_cursor(api, cursor):
    assert api.get(f"/jobs?before={cursor}").status_code == 400


def test_only_admins_list_everyones_jobs(api, app, admin):
    job_id = api.export().json["id"]
    overseer = Api(app, app.test_client(), admin)
    assert overseer.get("/jobs").json["items"] == []
    assert [job["id"] for job in overseer.get("/jobs?everyone=true").json["items"]] == [job_id]
    other = api.get("/jobs?everyone=true").json["items"]
    assert [job["id"] for job in other] == [job_id]


def test_a_long_page_asks_the_database_as_often_as_a_short_one(api, demo, statements):
    for _ in range(4):
        api.run(api.export(params={"project": "no such project"}).json["id"])
    statements.clear()
    api.get("/jobs?limit=1")
    short = len(statements)
    assert all(job["artifact"] for job in api.get("/jobs").json["items"])
    assert len(statements) == 2 * short


# Who is asking.


def test_without_a_token_or_session(app, api):
    for path, methods in api.document["paths"].items():
        for method in methods:
            url = path.replace("{id}", str(uuid4())).replace("{key}", "all_tasks")
            answer = app.test_client().open(url, method=method.upper())
            assert answer.status_code == 401, url
            assert answer.mimetype == "application/problem+json"
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_a_wrong_or_revoked_token(api):
    token, api.token = api.token, "wb_nonsense"
    assert api.get("/jobs").status_code == 401
    api.token = token
    with api.app.app_context():
        ApiToken.revoke(api.user, db.session.query(ApiToken.id).scalar())
        db.session.commit()
    assert api.get("/jobs").status_code == 401


def test_a_session_may_read_and_needs_its_csrf_token_to_change(api, auth, member):
    client = auth.client_of(member)
    assert client.get("/api/v1/jobs").status_code == 200
    refused = client.post("/api/v1/exports", json=EXPORT)
    assert refused.status_code == 400
    assert refused.json["code"] == "csrf"
    check(api.document, "POST", refused)
    taken = client.post("/api/v1/exports", json=EXPORT, headers={"X-CSRFToken": auth.csrf(client)})
    assert taken.status_code == 202
    check(api.document, "POST", taken)


# Limits.


def test_too_many_unfinished_jobs(api, app):
    limit = app.config["WAYBILL"].user_running_limit
    made = [api.export() for _ in range(limit)]
    assert {answer.status_code for answer in made} == {202}
    refused = api.export()
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) > 0
    api.post(f"/jobs/{made[0].json['id']}/cancellation")
    assert api.export().status_code == 202


def test_too_many_requests(environ, app, member):
    from app import create_app

    slow = create_app(environ | {"REQUEST_RATE": "3 per minute"})
    slow.testing = True
    api = Api(slow, slow.test_client(), member)
    answers = [api.get("/jobs") for _ in range(4)]
    with slow.app_context():
        db.engine.dispose()
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert 0 < int(answers[-1].headers["Retry-After"]) <= 61


# Whatever else.


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("POST", "/nowhere", 404),
        ("GET", "/jobs/not-an-id", 404),
        ("GET", "/exports", 405),
        ("DELETE", "/jobs", 405),
    ],
)
def test_everything_under_api_answers_with_a_problem(api, method, path, status):
    headers = {"Authorization": f"Bearer {api.token}", "Accept": "text/html"}
    answer = api.client.open(f"/api/v1{path}", method=method, headers=headers)
    assert answer.status_code == status
    assert answer.mimetype == "application/problem+json"
    valid(api.document, {"$ref": "#/components/schemas/Problem"}, answer.json)
    if status == 405:
        assert answer.headers["Allow"]


def test_head_and_options(api):
    headers = {"Authorization": f"Bearer {api.token}"}
    head = api.client.head("/api/v1/jobs", headers=headers)
    assert (head.status_code, head.data) == (200, b"")
    options = api.client.options("/api/v1/exports", headers=headers)
    assert options.status_code == 200
    assert "POST" in options.headers["Allow"]


def test_a_revoked_link_is_null(api, demo):
    job_id = api.export().json["id"]
    api.run(job_id)
    with api.app.app_context():
        db.session.execute(update(Artifact).values(link_revoked_at=jobs.database_now()))
        db.session.commit()
    assert api.get(f"/jobs/{job_id}").json["artifact"]["url"] is None
