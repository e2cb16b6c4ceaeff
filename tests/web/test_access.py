"""Who may do what, route by route. A route without a rule in `RULES` fails here, and a rule without a route.

Every rule is tried with real requests: by nobody, by the owner of the things in the address, by another
member and by an administrator; under /api/ also with each one's API token.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import pytest
from apiflask import APIFlask
from flask.testing import FlaskClient
from sqlalchemy import select

from app import links, uploads
from app.extensions import db
from app.imports import requests
from app.models import ApiToken, Artifact, Import, Job, Upload, User
from app.storage import artifact_key

from .routes import address, rules

NOBODY, OWNER, OTHER, ADMIN = "nobody", "the owner", "another member", "an administrator"
EVERYBODY = frozenset({NOBODY, OWNER, OTHER, ADMIN})
PEOPLE = EVERYBODY - {NOBODY}


@dataclass(frozen=True)
class Rule:
    """Who gets through; who is signed in but does not is told that there is no such thing."""

    allowed: frozenset[str]
    # What an allowed request needs to be understood.
    form: dict[str, str] = field(default_factory=dict)
    # The status of the job in the address, chosen so that the request would change something.
    status: str = "succeeded"
    # Only in development.
    development: bool = False
    # Nobody else is told that it is there, nor sent to sign in.
    hidden: bool = False


PUBLIC = Rule(EVERYBODY)
SIGNED_IN = Rule(PEOPLE)
OWNER_OR_ADMIN = Rule(frozenset({OWNER, ADMIN}))
OWNER_ALONE = Rule(frozenset({OWNER}))
# Nobody else is told that it is there, strangers neither.
ADMIN_ALONE = Rule(frozenset({ADMIN}), hidden=True)
MAILBOX = Rule(EVERYBODY, development=True)


def on_job(status: str) -> Rule:
    return Rule(OWNER_OR_ADMIN.allowed, status=status)


REPORT = {"report": "all_tasks", "param.since": "2020-01-01", "format": "csv"}

RULES: dict[tuple[str, str], Rule] = {
    # for everybody
    ("GET", "/static/<path:filename>"): PUBLIC,
    ("GET", "/bootstrap/static/<path:filename>"): PUBLIC,
    ("GET", "/healthz"): PUBLIC,
    ("GET", "/readyz"): PUBLIC,
    ("GET", "/metrics"): Rule(frozenset({ADMIN}), hidden=True),
    ("GET", "/operations"): Rule(frozenset({ADMIN})),
    ("GET", "/sign-in"): PUBLIC,
    ("POST", "/sign-in"): PUBLIC,
    ("POST", "/sign-out"): PUBLIC,
    ("GET", "/reset-password"): PUBLIC,
    ("POST", "/reset-password"): PUBLIC,
    ("GET", "/api/v1/openapi.json"): PUBLIC,
    ("GET", "/api/v1/docs"): PUBLIC,
    # for whoever has the secret in the address
    ("GET", "/d/<token>"): PUBLIC,
    ("GET", "/d/<token>/receipt"): PUBLIC,
    ("GET", "/reset-password/<token>"): PUBLIC,
    ("POST", "/reset-password/<token>"): PUBLIC,
    ("GET", "/sign-in/link"): PUBLIC,
    ("POST", "/sign-in/link"): Rule(EVERYBODY, form={"email": "somebody@example.org"}),
    ("GET", "/sign-in/link/<secret>"): PUBLIC,
    ("POST", "/sign-in/link/<secret>"): PUBLIC,
    # for whoever is signed in, about themselves
    ("GET", "/"): SIGNED_IN,
    ("GET", "/reports/<key>"): SIGNED_IN,
    ("POST", "/reports/<key>/preflight"): Rule(PEOPLE, form=REPORT),
    ("POST", "/exports"): Rule(PEOPLE, form=REPORT),
    ("GET", "/jobs"): SIGNED_IN,
    ("GET", "/jobs/events"): SIGNED_IN,
    ("GET", "/account"): SIGNED_IN,
    ("POST", "/account/tokens"): Rule(PEOPLE, form={"name": "ledger"}),
    ("POST", "/account/sign-outs"): SIGNED_IN,
    ("POST", "/account/time-zone"): Rule(PEOPLE, form={"time_zone": "Europe/Berlin"}),
    ("GET", "/change-password"): SIGNED_IN,
    ("POST", "/change-password"): SIGNED_IN,
    ("GET", "/api/v1/reports"): SIGNED_IN,
    ("GET", "/api/v1/reports/<key>"): SIGNED_IN,
    ("POST", "/api/v1/reports/<key>/preflight"): Rule(PEOPLE, form={"format": "csv"}),
    ("POST", "/api/v1/exports"): Rule(PEOPLE, form={"report": "all_tasks"}),
    ("GET", "/api/v1/jobs"): SIGNED_IN,
    ("GET", "/imports"): SIGNED_IN,
    ("GET", "/imports/new"): SIGNED_IN,
    ("POST", "/imports"): SIGNED_IN,
    ("GET", "/api/v1/importers"): SIGNED_IN,
    ("GET", "/api/v1/importers/<key>"): SIGNED_IN,
    ("GET", "/api/v1/imports"): SIGNED_IN,
    ("POST", "/api/v1/imports"): Rule(PEOPLE, form={"importer": "members"}),
    ("POST", "/api/v1/uploads"): Rule(PEOPLE, form={"filename": "members.csv"}),
    # for the job's owner and administrators
    ("GET", "/jobs/<uuid:job_id>"): OWNER_OR_ADMIN,
    ("GET", "/jobs/<uuid:job_id>/summary"): OWNER_OR_ADMIN,
    ("GET", "/jobs/<uuid:job_id>/receipt"): OWNER_OR_ADMIN,
    ("GET", "/jobs/<uuid:job_id>/events"): OWNER_OR_ADMIN,
    ("POST", "/jobs/<uuid:job_id>/again"): OWNER_OR_ADMIN,
    ("POST", "/jobs/<uuid:job_id>/cancellation"): on_job("running"),
    ("POST", "/jobs/<uuid:job_id>/retry"): on_job("failed"),
    ("POST", "/jobs/<uuid:job_id>/link"): OWNER_OR_ADMIN,
    ("POST", "/jobs/<uuid:job_id>/link/revocation"): OWNER_OR_ADMIN,
    ("GET", "/api/v1/jobs/<uuid:id>"): OWNER_OR_ADMIN,
    ("GET", "/api/v1/jobs/<uuid:job_id>/events"): OWNER_OR_ADMIN,
    ("GET", "/api/v1/jobs/<uuid:job_id>/log"): OWNER_OR_ADMIN,
    ("POST", "/api/v1/jobs/<uuid:id>/cancellation"): on_job("queued"),
    ("POST", "/api/v1/jobs/<uuid:id>/retry"): on_job("failed"),
    ("POST", "/jobs/<uuid:job_id>/pause"): on_job("running"),
    ("POST", "/jobs/<uuid:job_id>/resumption"): on_job("queued"),
    ("POST", "/api/v1/jobs/<uuid:id>/pause"): on_job("running"),
    ("POST", "/api/v1/jobs/<uuid:id>/resumption"): on_job("queued"),
    # for the import's owner and administrators
    ("GET", "/imports/<uuid:import_id>"): OWNER_OR_ADMIN,
    ("POST", "/imports/<uuid:import_id>"): Rule(OWNER_OR_ADMIN.allowed, form={"mode": "insert"}),
    ("POST", "/imports/<uuid:import_id>/jobs"): Rule(OWNER_OR_ADMIN.allowed, form={"step": "apply"}),
    ("GET", "/api/v1/imports/<uuid:id>"): OWNER_OR_ADMIN,
    ("POST", "/api/v1/imports/<uuid:id>/jobs"): Rule(OWNER_OR_ADMIN.allowed, form={"step": "apply"}),
    # for the upload's owner and administrators
    ("GET", "/api/v1/uploads/<uuid:id>"): OWNER_OR_ADMIN,
    ("PATCH", "/api/v1/uploads/<uuid:id>"): OWNER_OR_ADMIN,
    ("POST", "/api/v1/uploads/<uuid:id>/completion"): OWNER_OR_ADMIN,
    ("DELETE", "/api/v1/uploads/<uuid:id>"): OWNER_OR_ADMIN,
    # for the owner alone
    ("POST", "/account/tokens/<int:token_id>/revocation"): OWNER_ALONE,
    # only where mails are caught
    ("GET", "/mailbox"): MAILBOX,
    ("GET", "/mailbox/<name>"): MAILBOX,
    ("GET", "/mailbox/<name>/html"): MAILBOX,
    ("GET", "/mailbox/static/<path:filename>"): MAILBOX,
}

ROUTES = list(RULES)
API = [route for route in ROUTES if route[1].startswith("/api/")]


def test_every_route_has_a_rule_and_every_rule_a_route(app: APIFlask) -> None:
    routes = {
        (method, rule.rule) for rule in rules(app) for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert routes == RULES.keys()


def test_in_production_there_is_no_mailbox(app_with: Any) -> None:
    app = app_with(ENVIRONMENT="production")
    served = {rule.rule for rule in rules(app)}
    assert served == {rule for (_, rule), access in RULES.items() if not access.development}


# --- the world: what the owner has, and everybody's way in ------------------------------------------------


@dataclass
class World:
    app: APIFlask
    auth: Any
    people: dict[str, Any]
    secrets: dict[str, str] = field(default_factory=dict)

    def client(self, who: str) -> FlaskClient:
        if who == NOBODY:
            return self.app.test_client()
        client: FlaskClient = self.auth.client_of(self.people[who])
        return client

    def things(self, status: str) -> Things:
        """New things of the owner's."""
        with self.app.app_context():
            job_id = uuid4()
            db.session.add(
                Job(
                    id=job_id,
                    kind="export",
                    definition="all_tasks",
                    title="All tasks",
                    owner_id=self.people[OWNER].id,
                    status=status,
                    attempt=0 if status == "queued" else 1,
                    started_at=None if status == "queued" else datetime.now(UTC),
                    finished_at=datetime.now(UTC) if status in ("succeeded", "failed") else None,
                )
            )
            db.session.flush()
            link = _publish(self.app, job_id) if status == "succeeded" else ""
            token, _ = ApiToken.create(db.session.get_one(User, self.people[OWNER].id), "the owner's")
            upload = uploads.begin(self.people[OWNER], "members.csv")
            upload = uploads.receive(upload, 0, io.BytesIO(b"email\nann@example.org\n"))
            db.session.commit()
            import_id = self._import()
            return Things(job_id, link, token.id, upload.id, import_id)

    def _import(self) -> UUID:
        owner = db.session.get_one(User, self.people[OWNER].id)
        upload = uploads.begin(owner, "members.csv")
        content = b"email,name,company,joined\nann@example.org,Ann,Acme,2026-01-31\n"
        upload = uploads.complete(uploads.receive(upload, 0, io.BytesIO(content)))
        return UUID(str(requests.create(owner, "members", upload).id))

    def state(self, things: Things) -> list[Any]:
        """All that a request could have changed on the owner's things."""
        with self.app.app_context():
            job = db.session.execute(select(Job.__table__).where(Job.id == things.job_id)).one()
            artifact = db.session.execute(
                select(Artifact.__table__).where(Artifact.job_id == things.job_id)
            ).all()
            token = db.session.execute(select(ApiToken.__table__).where(ApiToken.id == things.token_id)).one()
            upload = db.session.execute(select(Upload.__table__).where(Upload.id == things.upload_id)).one()
            import_ = db.session.execute(select(Import.__table__).where(Import.id == things.import_id)).one()
            steps = db.session.scalars(select(Job.id).where(Job.import_id == things.import_id)).all()
            children = db.session.scalars(select(Job.id).where(Job.parent_id == things.job_id)).all()
            return [job, artifact, token, upload, import_, steps, children]


@dataclass(frozen=True)
class Things:
    job_id: UUID
    # Empty unless there is a file.
    link: str
    token_id: int
    upload_id: UUID
    import_id: UUID

    def values(self, path: str) -> dict[str, Any]:
        """What stands in such an address, by the placeholder's name."""
        by_id = {"uploads": self.upload_id, "imports": self.import_id}
        return {
            "job_id": self.job_id,
            "import_id": self.import_id,
            "id": next((found for name, found in by_id.items() if f"/{name}/" in path), self.job_id),
            "token_id": self.token_id,
            "token": self.link,
            "key": "members" if "/importers/" in path else "all_tasks",
        }


def _publish(app: APIFlask, job_id: UUID) -> str:
    content = b"id\r\n1\r\n"
    key = artifact_key(job_id, 1, "csv")
    with app.extensions["waybill.storage"].writer(key, content_type="text/csv", filename="a.csv") as writer:
        writer.write(content)
        writer.commit()
    artifact = Artifact(
        job_id=job_id,
        key=key,
        filename="a.csv",
        content_type="text/csv",
        bytes=len(content),
        rows=1,
        sha256=hashlib.sha256(content).hexdigest(),
        receipt={"snapshot_at": "2026-01-31T09:15:00+00:00"},
        expires_at=datetime.now(UTC) + timedelta(hours=1),
    )
    db.session.add(artifact)
    db.session.flush()
    return urlsplit(links.url(artifact)).path.removeprefix("/d/")


@pytest.fixture
def world(app: APIFlask, auth: Any, member: Any, other: Any, admin: Any) -> World:
    made = World(app, auth, {OWNER: member, OTHER: other, ADMIN: admin})
    with app.app_context():
        for who, person in made.people.items():
            _, made.secrets[who] = ApiToken.create(db.session.get_one(User, person.id), who)
        db.session.commit()
    return made


# --- the requests -----------------------------------------------------------------------------------------


def test_route(world: World, route: tuple[str, str]) -> None:
    rule = RULES[route]
    for who in (NOBODY, OTHER, ADMIN, OWNER):
        things = world.things(rule.status)
        before = world.state(things)
        client = world.client(who)
        with asked(client, route, things, {"X-CSRFToken": world.auth.csrf(client)}) as answer:
            check(route, who, answer)
        if who not in rule.allowed:
            assert world.state(things) == before, f"{who} changed something by {route}"


def test_route_with_a_token(world: World, api_route: tuple[str, str]) -> None:
    for who in (OTHER, ADMIN, OWNER):
        things = world.things(RULES[api_route].status)
        before = world.state(things)
        headers = {"Authorization": f"Bearer {world.secrets[who]}"}
        with asked(world.app.test_client(), api_route, things, headers) as answer:
            check(api_route, who, answer)
        if who not in RULES[api_route].allowed:
            assert world.state(things) == before, f"{who} changed something by {api_route}"


def test_pages_take_no_token(world: World) -> None:
    """Whoever finds a program's token gets no page with which to make themselves at home."""
    headers = {"Authorization": f"Bearer {world.secrets[OWNER]}", "X-CSRFToken": "none"}
    for route in (("GET", "/account"), ("POST", "/account/tokens"), ("POST", "/change-password")):
        with asked(world.app.test_client(), route, world.things("succeeded"), headers) as answer:
            assert answer.status_code == 303, route


@contextmanager
def asked(
    client: FlaskClient, route: tuple[str, str], things: Things, headers: dict[str, str]
) -> Iterator[Any]:
    """The answer to a real request, its stream left open no longer than needed."""
    method, path = route
    url = path
    for rule in rules(client.application):  # type: ignore[arg-type]
        if rule.rule == path:
            url = address(rule, **things.values(path))
    form = RULES[route].form
    body: Any = {"json": form} if path.startswith("/api/") else {"data": form}
    with client.open(url, method=method, headers=headers, **(body if method != "GET" else {})) as answer:
        yield answer


def check(route: tuple[str, str], who: str, answer: Any) -> None:
    said = f"{who}: {' '.join(route)} gave {answer.status_code}"
    rule = RULES[route]
    sent_to_sign_in = (answer.location or "").startswith("/sign-in") and route[1] != "/sign-out"
    if who in rule.allowed:
        missing = route[1].startswith("/mailbox/") or "filename" in route[1]  # no such mail, no such file
        assert answer.status_code not in ({401, 403} if missing else {401, 403, 404}), said
        assert answer.status_code < 500, said
        assert not sent_to_sign_in, said
    elif who != NOBODY or rule.hidden:
        assert answer.status_code == 404, said
    elif route[1].startswith("/api/"):
        assert answer.status_code == 401, said
    else:
        assert (sent_to_sign_in and answer.status_code == 303) or answer.status_code == 401, said


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for name, routes in (("route", ROUTES), ("api_route", API)):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, routes, ids=" ".join)
