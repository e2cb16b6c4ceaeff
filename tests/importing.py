"""What tests of imports share: a target of their own, importers into it, and imports that run here."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

import psycopg

from app import definitions, events, imports, leases, uploads
from app.extensions import db
from app.importers import Column, Importer, Registry
from app.imports.file.dialect import Dialect
from app.models import Import, Job, User

TABLE = """
CREATE SCHEMA landing;
CREATE TABLE landing.things (
    id bigint PRIMARY KEY, name varchar(40) NOT NULL, amount numeric(12, 2), day date, at timestamptz,
    open boolean NOT NULL DEFAULT true, note text, touched integer NOT NULL DEFAULT 0,
    CONSTRAINT positive CHECK (amount >= 0)
)
"""


class Things(Importer):
    key, title, source, table, natural_key = "things", "Things", "landing", "things", ("id",)
    columns = (
        Column(name="id", type="int", required=True),
        Column(name="name", required=True),
        Column(name="amount", type="decimal"),
        Column(name="day", type="date"),
        Column(name="at", type="datetime"),
        Column(name="open", type="bool", default=True),
        Column(name="note"),
    )


class Known(Registry):
    """A registry of the tests' own importers, of no files."""

    def __init__(self, *importers: Importer) -> None:
        super().__init__("", definitions.Known(("landing",), definitions.ROLES))
        members = {importer.key: importer for importer in importers}
        self._loaded = replace(self._loaded, members=members)

    def refresh(self) -> bool:
        return False


class Landing:
    """The target, and imports into it by one person; `chunk_bytes` makes short files long."""

    def __init__(self, url: str, user: User) -> None:
        self.url, self._user_id = url, user.id
        self.conn: psycopg.Connection[Any] = psycopg.connect(url, autocommit=True)

    def close(self) -> None:
        self.conn.close()

    def rows(self, query: str = "SELECT * FROM landing.things ORDER BY id") -> list[Any]:
        return self.conn.execute(query.encode()).fetchall()

    def digest(self) -> str:
        """Of all rows, whatever their places are."""
        query = "SELECT md5(coalesce(string_agg(t::text, '|' ORDER BY id), '')) FROM landing.things AS t"
        return str(self.rows(query)[0][0])

    def upload(self, text: str | bytes, filename: str = "things.csv") -> Any:
        data = text.encode() if isinstance(text, str) else text
        upload = uploads.begin(db.session.get_one(User, self._user_id), filename)
        upload = uploads.receive(upload, 0, io.BytesIO(data))
        return uploads.complete(upload)

    def ask(self, text: str | bytes, *, key: str = "things", step: str = "apply", **options: Any) -> UUID:
        """Commit an import of this text and a job for its step; the job's id. Nobody is told of it."""
        upload = self.upload(text)
        data = text.encode() if isinstance(text, str) else text
        header = data.partition(b"\n")[0].decode().rstrip("\r").split(",")
        dialect = options.pop("dialect", Dialect())
        import_ = Import(
            owner_id=self._user_id,
            importer=key,
            title=key.title(),
            upload_id=upload.id,
            dialect=dialect.as_json(),
            header=header,
            mapping=options.pop("mapping", {name: place for place, name in enumerate(header)}),
            **{"mode": "upsert", "reject_limit": 1000, "reject_percent": 5} | options,
        )
        db.session.add(import_)
        db.session.commit()
        return self.ask_again(import_.id, step)

    def ask_again(self, import_id: UUID, step: str = "apply") -> UUID:
        import_ = db.session.get_one(Import, import_id)
        job = Job(
            kind="import",
            definition=import_.importer,
            title=import_.title,
            owner_id=self._user_id,
            queue="high",
            import_id=import_.id,
            step=step,
        )
        db.session.add(job)
        db.session.commit()
        return UUID(str(job.id))

    def run(self, job_id: UUID) -> Job:
        """One attempt, here; the job afterwards."""
        db.session.remove()
        lease = leases.claim(job_id)
        assert lease is not None
        imports.run(lease)
        db.session.remove()
        return db.session.get_one(Job, job_id)

    def apply(self, text: str | bytes, **options: Any) -> Job:
        job = self.run(self.ask(text, **options))
        assert job.status == "succeeded", self.log(job.id)
        return job

    def result(self, job: Job) -> dict[str, Any]:
        """The counts that are not nought."""
        import_ = db.session.get_one(Import, job.import_id)
        return {name: count for name, count in (import_.result or {}).items() if count}

    def log(self, job_id: UUID) -> list[str]:
        return [line.text for line in events.after(job_id, 0)]


@contextmanager
def landed(
    app: Any,
    database: Callable[[], str],
    user: User,
    *importers: Importer,
    table: str = TABLE,
    **settings: Any,
) -> Iterator[Landing]:
    """A database of its own for the target, and the app knowing it as the source `landing`."""
    made = database()
    with psycopg.connect(made, autocommit=True) as conn:
        conn.execute(table.encode())
    before = app.config["WAYBILL"], app.extensions["waybill.importers"]
    app.config["WAYBILL"] = replace(
        before[0], targets={"landing": f"{made}?options=-csearch_path%3Dlanding"}, **settings
    )
    app.extensions["waybill.importers"] = Known(*importers or (Things(),))
    landing = Landing(made, user)
    try:
        with app.app_context():
            yield landing
            db.session.remove()
    finally:
        landing.close()
        app.config["WAYBILL"], app.extensions["waybill.importers"] = before


def text_of(rows: int, *, first: int = 1, name: str = "Thing") -> str:
    """A file of so many good things; some have quotes, some line breaks, some nothing."""
    lines = ["id,name,amount,day,at,open,note"]
    for i in range(first, first + rows):
        note = f'"He said ""{i}"",\nthen left"' if i % 3 == 0 else f"plain {i}" if i % 3 == 1 else ""
        amount = f"{i * 37 % 100000 / 100:.2f}" if i % 5 else ""
        lines.append(
            f"{i},{name} {i},{amount},2026-01-{i % 28 + 1:02},2026-01-31T10:{i % 60:02}:00Z,yes,{note}"
        )
    return "\n".join(lines) + "\n"
