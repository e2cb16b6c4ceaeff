"""What all tests stand on: real PostgreSQL, Valkey, SMTP and, when asked for, S3 and Chromium.

Four fixtures carry most tests: `app`, `client`, `runner`, `auth`. Each test starts with empty tables, an
empty Redis and an empty mailbox. `stack` gives the real processes of the Procfile, beside a database of
their own.

`make test` runs all of them in two processes (see `spreading.py`), each with servers of its own.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import redis
from hypothesis import HealthCheck, settings
from psycopg import sql
from psycopg.conninfo import make_conninfo

from app.dev import chromium
from app.dev.child import free_port
from app.dev.mailbox import Mailbox
from app.dev.postgres import Postgres
from app.dev.seaweedfs import SeaweedFS
from app.dev.smtp import Smtp
from app.dev.stack import Stack
from app.dev.valkey import Valkey
from tests.spreading import pytest_xdist_auto_num_workers, pytest_xdist_make_scheduler  # noqa: F401

if TYPE_CHECKING:
    from apiflask import APIFlask
    from flask.testing import FlaskClient, FlaskCliRunner
    from playwright.sync_api import Browser, Page

# The same examples in every run, however slow the machine; to look for others:
# `make test ARGS="--hypothesis-profile=search -k any_text"`.
settings.register_profile(
    "steady", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("search", deadline=None, max_examples=2_000)
settings.load_profile("steady")

PASSWORD = "correct horse battery staple"
DEMO_TASKS = 2_000


# --- services ---------------------------------------------------------------------------------------------


@dataclass
class Services:
    """What `make run` embeds, for tests: any of them may be stopped and started again."""

    directory: Path
    postgres: Postgres
    valkey: Valkey
    smtp: Smtp

    def database(self, name: str, template: str | None = None) -> str:
        """Make a database, as a copy of another one if `template` is given; its URL."""
        with psycopg.connect(self.postgres.database_url("postgres"), autocommit=True) as connection:
            copied = sql.SQL(" TEMPLATE {}").format(sql.Identifier(template)) if template else sql.SQL("")
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)) + copied)
        return self.postgres.database_url(name)


@pytest.fixture(scope="session")
def session_directory() -> Iterator[Path]:
    """Short and traversable, unlike pytest's own: PostgreSQL runs as another user when we are root."""
    directory = Path(tempfile.mkdtemp(prefix="waybill-tests-"))
    directory.chmod(0o711)
    yield directory
    rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def services(session_directory: Path) -> Iterator[Services]:
    directory = session_directory
    found = Services(
        directory,
        Postgres(directory / "postgres", durable=False),
        Valkey(directory / "valkey"),
        Smtp(directory / "mail"),
    )
    try:
        found.postgres.start()
        found.valkey.start()
        found.smtp.start()
        yield found
    finally:
        for service in (found.smtp, found.valkey, found.postgres):
            service.stop()


@pytest.fixture(scope="session")
def s3(session_directory: Path) -> Iterator[SeaweedFS]:
    """A real S3; `s3.environ` is what boto3 needs to find it."""
    server = SeaweedFS(session_directory / "s3")
    try:
        server.start()
        yield server
    finally:
        server.kill()


# --- the app ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def session_environ(services: Services) -> dict[str, str]:
    """The settings of the session's app, its database not yet migrated."""
    storage = services.directory / "storage"
    storage.mkdir()
    return {
        "ENVIRONMENT": "development",
        "DATABASE_URL": services.postgres.url,
        "REDIS_URL": services.valkey.url,
        "STORAGE_URL": storage.as_uri(),
        "MAIL_SERVER": services.smtp.host,
        "MAIL_PORT": str(services.smtp.port),
        "MAILBOX_DIR": str(services.smtp.directory),
        "SECRET_KEY": secrets.token_hex(32),
        "PUBLIC_URL": "http://127.0.0.1:8000",
        "SIGN_IN_RATE": "1000 per minute",
    }


@pytest.fixture
def environ(session_environ: dict[str, str]) -> dict[str, str]:
    """The settings of `app`; change them as you like and give them to `create_app`."""
    return dict(session_environ)


@pytest.fixture(scope="session")
def migrated(services: Services, session_environ: dict[str, str]) -> str:
    """The name of a database with all migrations and no rows but theirs; copy it for one of your own."""
    from flask_migrate import upgrade

    from app import create_app

    name = "migrated"
    app = create_app({**session_environ, "DATABASE_URL": services.database(name)})
    with app.app_context():
        upgrade()
        _dispose(app)
    return name


@pytest.fixture(scope="session")
def session_app(services: Services, session_environ: dict[str, str], migrated: str) -> Iterator[APIFlask]:
    from app import create_app

    session_environ["DATABASE_URL"] = services.database("tests", template=migrated)
    app = create_app(session_environ)
    app.testing = True
    yield app
    with app.app_context():
        _dispose(app)


@pytest.fixture(scope="session")
def seeded(session_app: APIFlask, session_environ: dict[str, str]) -> frozenset[str]:
    """Tables whose rows come from the migrations: a clean database keeps them."""
    with psycopg.connect(session_environ["DATABASE_URL"]) as connection:
        tables = _tables(connection)
        return frozenset(table for table in tables if _has_rows(connection, table))


@pytest.fixture(scope="session")
def broom(session_environ: dict[str, str], seeded: frozenset[str]) -> Iterator[Broom]:
    broom = Broom(session_environ["DATABASE_URL"], keep=seeded)
    yield broom
    broom.close()


@pytest.fixture
def app(session_app: APIFlask, session_environ: dict[str, str], broom: Broom) -> APIFlask:
    """The app with empty tables, an empty Redis and an empty mailbox."""
    broom.sweep()
    with redis.Redis.from_url(session_environ["REDIS_URL"]) as client:
        client.flushdb()
    Mailbox(Path(session_environ["MAILBOX_DIR"])).clear()
    return session_app


@pytest.fixture(scope="session")
def session_demo(session_app: APIFlask, session_environ: dict[str, str]) -> None:
    from app.dev import demo

    demo.load(session_environ["DATABASE_URL"], tasks=DEMO_TASKS)


@pytest.fixture
def demo(app: APIFlask, session_demo: None) -> None:
    """The demo schema with `DEMO_TASKS` tasks: read only, as all tests of a session share it."""


@pytest.fixture
def client(app: APIFlask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def runner(app: APIFlask) -> FlaskCliRunner:
    return app.test_cli_runner()


@pytest.fixture
def mailbox(app: APIFlask, session_environ: dict[str, str]) -> Mailbox:
    """The caught mails; `mailbox.wait(to=..., subject=...)` waits for one."""
    return Mailbox(Path(session_environ["MAILBOX_DIR"]))


# --- people -----------------------------------------------------------------------------------------------


@pytest.fixture
def person(app: APIFlask) -> Callable[..., Any]:
    """person("ann@example.org", "admin"): a confirmed user with these roles and the password `PASSWORD`."""

    def make(email: str, *roles: str) -> Any:
        from sqlalchemy import select

        from app.extensions import db
        from app.models.user import Role, User

        with app.app_context():
            known = {role.name: role for role in db.session.scalars(select(Role))}
            user = User(
                email=email,
                password=_hashed(app),
                fs_uniquifier=secrets.token_hex(16),
                roles=[known.get(name) or Role(name=name) for name in roles],
            )
            db.session.add(user)
            db.session.commit()
            db.session.refresh(user)
            assert user.role_names == set(roles)
            db.session.expunge_all()
            return user

    return make


@pytest.fixture
def member(person: Callable[..., Any]) -> Any:
    return person("member@example.org", "member")


@pytest.fixture
def other(person: Callable[..., Any]) -> Any:
    """Another member, who may see nothing of `member`."""
    return person("other@example.org", "member")


@pytest.fixture
def admin(person: Callable[..., Any]) -> Any:
    return person("admin@example.org", "admin")


class Auth:
    """Signs the test's client in and out through the real forms."""

    def __init__(self, app: APIFlask, client: FlaskClient) -> None:
        self.app = app
        self.client = client

    def sign_in(self, user: Any, password: str = PASSWORD, client: FlaskClient | None = None) -> Any:
        """`user` is a User or an address; the answer to the posted form."""
        client = client or self.client
        url = self.app.config["SECURITY_LOGIN_URL"]
        form = {
            "email": getattr(user, "email", user),
            "password": password,
            "csrf_token": self.csrf(client),
        }
        return client.post(url, data=form)

    def sign_out(self, client: FlaskClient | None = None) -> Any:
        client = client or self.client
        url = self.app.config["SECURITY_LOGOUT_URL"]
        return client.post(url, data={"csrf_token": self.csrf(client)})

    def client_of(self, user: Any) -> FlaskClient:
        """A client of its own, signed in."""
        client = self.app.test_client()
        self.sign_in(user, client=client)
        return client

    def csrf(self, client: FlaskClient | None = None) -> str:
        """A token that the client's session believes, for any form or the X-CSRFToken header."""
        from itsdangerous import URLSafeTimedSerializer

        with (client or self.client).session_transaction() as session:
            raw = session.setdefault("csrf_token", secrets.token_hex(20))
        return URLSafeTimedSerializer(str(self.app.secret_key), salt="wtf-csrf-token").dumps(raw)


@pytest.fixture
def auth(app: APIFlask, client: FlaskClient) -> Auth:
    return Auth(app, client)


# --- the real processes -----------------------------------------------------------------------------------


class RealStack(Stack):
    """The Procfile's processes with services of their own, which a test may stop, kill and start again."""

    def __init__(self, environ: Mapping[str, str], directory: Path, valkey: Valkey, smtp: Smtp) -> None:
        super().__init__(environ, directory / "log")
        self.settings = dict(environ)
        self.directory = directory
        self.valkey = valkey
        self.smtp = smtp
        self.mailbox = Mailbox(smtp.directory)

    def restore(self) -> None:
        """Start again whatever an earlier test left dead."""
        for service in (self.valkey, self.smtp):
            if not service.alive:
                service.start()
        self.revive()


@pytest.fixture(scope="session")
def session_stack(
    services: Services, session_directory: Path, session_environ: dict[str, str], migrated: str
) -> Iterator[RealStack]:
    from app.dev import demo

    directory = session_directory / "stack"
    (directory / "storage").mkdir(parents=True)
    port = free_port()
    valkey, smtp = Valkey(directory / "valkey"), Smtp(directory / "mail")
    environ = session_environ | {
        "DATABASE_URL": services.database("stack", template=migrated),
        "REDIS_URL": valkey.url,
        "STORAGE_URL": (directory / "storage").as_uri(),
        "MAIL_PORT": str(smtp.port),
        "MAILBOX_DIR": str(smtp.directory),
        "PORT": str(port),
        "PUBLIC_URL": f"http://127.0.0.1:{port}",
        "WEB_CONCURRENCY": "1",
        "WORKER_THREADS": "4",
    }
    demo.load(environ["DATABASE_URL"], tasks=DEMO_TASKS)
    _make_demo_people(environ)
    stack = RealStack(environ, directory, valkey, smtp)
    try:
        valkey.start()
        smtp.start()
        stack.start()
        stack.wait_ready()
        yield stack
    finally:
        stack.stop()
        smtp.stop()
        valkey.stop()


@pytest.fixture
def stack(session_stack: RealStack) -> RealStack:
    """Web, worker, bulk and clock, really running, with the demo's data and people; all alive at first."""
    session_stack.restore()
    return session_stack


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """A failed test of the real processes shows what they said last."""
    report: Any = yield
    stack = getattr(item, "funcargs", {}).get("stack")
    if report.failed and stack is not None:
        report.sections.append(("the processes' last lines", stack.tail()))
    return report


# --- the browser ------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=30_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(chromium.find()), args=chromium.ARGUMENTS, timeout=60_000
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, stack: RealStack) -> Iterator[Page]:
    """A fresh browser profile at the real stack; a script error or a CSP violation fails the test."""
    context = browser.new_context(base_url=stack.base_url)
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: _note_violation(complaints, message.text))
    yield page
    context.close()
    assert not complaints, f"The page complained: {complaints}"


@pytest.fixture
def sign_in(stack: RealStack) -> Callable[..., None]:
    """sign_in(page, "member@demo.waybill.test", "waybill-member"): through the real page."""

    def sign_in(page: Page, email: str, password: str) -> None:
        page.goto("/sign-in")
        page.fill("input[name=email]", email)
        page.fill("input[name=password]", password)
        page.click("form:has(input[name=password]) [type=submit]")
        page.wait_for_url(lambda url: "/sign-in" not in url)

    return sign_in


# --- details ----------------------------------------------------------------------------------------------

_hashes: list[str] = []


def _hashed(app: APIFlask) -> str:
    """`PASSWORD` hashed once: each hash is meant to take long."""
    from flask_security.utils import hash_password

    if not _hashes:
        _hashes.append(hash_password(PASSWORD))
    return _hashes[0]


def _make_demo_people(environ: dict[str, str]) -> None:
    from app import create_app
    from app.accounts import create_user
    from app.dev.run import ADMIN, MEMBER

    app = create_app(environ)
    with app.app_context():
        for email, password, roles in (MEMBER, ADMIN):
            create_user(email, password, roles)
        _dispose(app)


def _note_violation(complaints: list[str], text: str) -> None:
    if "Content Security Policy" in text or "Content-Security-Policy" in text:
        complaints.append(text)


def _dispose(app: APIFlask) -> None:
    from app.extensions import db

    db.session.remove()
    db.engine.dispose()


def _tables(connection: psycopg.Connection[Any]) -> list[str]:
    query = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
    return [name for (name,) in connection.execute(query) if name != "alembic_version"]


def _has_rows(connection: psycopg.Connection[Any], table: str) -> bool:
    query = sql.SQL("SELECT EXISTS (SELECT FROM {})").format(sql.Identifier(table))
    row = connection.execute(query).fetchone()
    return bool(row and row[0])


class Broom:
    """Empties all tables but those to keep, over a connection that it keeps for the next time.

    DELETE is ten times faster than TRUNCATE on tables of few rows, and waits for no reader.
    """

    def __init__(self, url: str, keep: frozenset[str]) -> None:
        self._conninfo = make_conninfo(url, options="-c lock_timeout=30s")
        self._keep = keep
        self._connection: psycopg.Connection[Any] | None = None

    def sweep(self) -> None:
        try:
            self._delete()
        except psycopg.OperationalError:  # the last test cut it
            self.close()
            self._delete()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _delete(self) -> None:
        if self._connection is None:
            self._connection = psycopg.connect(self._conninfo, autocommit=True)
        tables = [table for table in _tables(self._connection) if table not in self._keep]
        deletes = sql.SQL(";").join(
            sql.SQL("DELETE FROM {}").format(sql.Identifier(table)) for table in tables
        )
        with self._connection.transaction():
            # Foreign keys look away.
            self._connection.execute(sql.SQL("SET LOCAL session_replication_role = replica;") + deletes)
