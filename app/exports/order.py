"""What an export is asked to make, read from the database once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from app import formats, lists, settings
from app.errors import NotAllowed, NotFound
from app.extensions import db
from app.formats import Format, Writing
from app.models.job import Job
from app.models.user import User
from app.reports import Report, SqlReport, Statement, registry, statement
from app.sources import Reading, Source, open_source

EXTENSIONS = {"none": "", "gzip": ".gz", "zip": ".zip"}
CONTENT_TYPES = {"gzip": "application/gzip", "zip": "application/zip"}


@dataclass(frozen=True)
class Order:
    """What is to be made, read from the database once; holds no connection."""

    report: Report
    values: Mapping[str, Any]
    params: Mapping[str, Any]
    user: User
    format: Format
    dialect: str
    compression: str
    columns: Sequence[str] | None = None
    zone: str = "UTC"

    @classmethod
    def of(cls, job_id: UUID) -> Order:
        job = db.session.get_one(Job, job_id)
        report = registry().get(job.definition)
        if not (job.owner.active and job.owner.may(report.roles)):
            raise NotAllowed(f"{job.owner.email} may no longer run {report.title!r}. Nothing was read.")
        format, dialect = formats.find(job.format, job.dialect)
        # The report may have become a bundle since it was asked for.
        compression = "zip" if report.bundled else job.compression
        order = cls(
            *(report, report.params.bind(job.params), job.params, job.owner),
            *(format, dialect, compression, job.columns),
            zone=job.time_zone,
        )
        db.session.expunge_all()
        db.session.remove()
        return replace(order, values=lists.fetch(report.params, order.values))

    def query(self, reading: Reading) -> Statement:
        """The statement of a report in SQL, with the columns that were chosen."""
        found = self.statement
        return Statement(reading.only(found.sql, self.columns), found.values) if self.columns else found

    def writing(self, texts: Collection[int] = ()) -> Writing:
        return self.format.writing(self.dialect, self.zone, texts)

    @property
    def clock(self) -> str:
        """The time zone in which moments stand in the file."""
        return self.zone if self.dialect in self.format.local_dialects else "UTC"

    @property
    def statement(self) -> Statement:
        """The same with all of its columns."""
        assert isinstance(self.report, SqlReport)
        return statement(self.report, self.values, self.user)

    @property
    def source(self) -> Source:
        name, config = self.report.source, settings.current()
        url = config.source_urls.get(name)
        if url is None:
            raise NotFound(f"The source {name!r} is not set up. Set SOURCE_{name.upper()}_URL.")
        return open_source(name, url, timedelta(seconds=config.statement_timeout_seconds))

    @property
    def extension(self) -> str:
        if self.report.bundled:
            return self.compression
        return self.format.extension + EXTENSIONS[self.compression]

    @property
    def content_type(self) -> str:
        return CONTENT_TYPES.get(self.compression, self.format.content_type)
