"""An export: report -> source -> format -> storage -> artifact, streaming, hashed and counted on the way."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

from flask import current_app
from isal import isal_zlib
from sqlalchemy import Connection, func, insert
from sqlalchemy.exc import DBAPIError

from app import formats, settings
from app.errors import (
    Cancelled,
    IncompleteArtifact,
    LeaseLost,
    NotAllowed,
    NotFound,
    Stopping,
    WaybillError,
)
from app.extensions import db
from app.formats import Counter, Format
from app.leases import Lease
from app.models.artifact import Artifact
from app.models.job import Job
from app.models.user import User
from app.reports import Report, SqlReport, Statement, compose, statement
from app.sources import Reading, Source, open_source
from app.storage import Storage, Stored, Writer, artifact_key

log = logging.getLogger(__name__)

COMPRESSIONS = ("none", "gzip")
# The pause before the next attempt, in seconds: 5, 20, 80 …
FIRST_PAUSE, PAUSE_FACTOR = 5, 4


def run(lease: Lease) -> None:
    """One attempt at an export, whatever becomes of it. Returns when the job has its next status."""
    with lease:
        try:
            _attempt(lease)
        except Cancelled:
            lease.cancelled()
        except Stopping:
            lease.hand_back()
        except LeaseLost:
            log.warning("Attempt %d of job %s ends: another one has the job.", lease.attempt, lease.job_id)
        except WaybillError as error:
            _failed(lease, error)
        except DBAPIError as error:
            log.warning("Job %s lost the database: %s", lease.job_id, error)
            _failed(lease, _DatabaseCut("Waybill's own database broke off the connection."))
        except Exception as error:
            log.exception("Job %s failed in a way nobody foresaw.", lease.job_id)
            lease.fail(
                "internal", f"The report stopped with an error of its own ({type(error).__name__}: {error})."
            )


def _attempt(lease: Lease) -> None:
    try:
        _produce(lease, _Order.of(lease.job_id))
    except Exception:
        # Whatever else went wrong, an interruption explains it: a query that was broken off, for one.
        lease.check()
        raise


class _DatabaseCut(WaybillError):
    code = "database_cut"
    retryable = True


def _failed(lease: Lease, error: WaybillError) -> None:
    left = settings.current().attempts_limit - _counted(lease)
    if error.retryable and left > 0:
        pause = FIRST_PAUSE * PAUSE_FACTOR ** max(0, _counted(lease) - 1)
        lease.retry_later(error.message, timedelta(seconds=pause))
    else:
        lease.fail(error.code, error.message)


def _counted(lease: Lease) -> int:
    """Attempts that count against the limit, this one included."""
    with db.engine.connect() as conn:
        forgiven = conn.execute(db.select(Job.forgiven).where(Job.id == lease.job_id)).scalar_one()
    return lease.attempt - int(forgiven)


@dataclass(frozen=True)
class _Order:
    """What is to be made, read from the database once; holds no connection."""

    report: Report
    values: Mapping[str, Any]
    params: Mapping[str, Any]
    user: User
    format: Format
    dialect: str
    compression: str

    @classmethod
    def of(cls, job_id: UUID) -> _Order:
        job = db.session.get_one(Job, job_id)
        report = current_app.extensions["waybill.reports"].get(job.definition)
        if not (job.owner.active and job.owner.may(report.roles)):
            raise NotAllowed(f"{job.owner.email} may no longer run {report.title!r}. Nothing was read.")
        format, dialect = formats.find(job.format, job.dialect)
        order = cls(
            report, report.params.bind(job.params), job.params, job.owner, format, dialect, job.compression
        )
        db.session.expunge_all()
        db.session.remove()
        return order

    @property
    def extension(self) -> str:
        return self.format.extension + (".gz" if self.compression == "gzip" else "")

    @property
    def content_type(self) -> str:
        return "application/gzip" if self.compression == "gzip" else self.format.content_type


def _produce(lease: Lease, order: _Order) -> None:
    storage = cast(Storage, current_app.extensions["waybill.storage"])
    source = _source(order.report.source)
    filename = f"{order.report.filename_on(datetime.now(UTC).date())}.{order.extension}"
    key = artifact_key(lease.job_id, lease.attempt, order.extension)
    began = time.monotonic()
    lease.log(f"Connecting to the source {order.report.source!r}.")
    with source.reading() as reading, lease.breaking_off(reading.break_off):
        lease.log(f"Reading one snapshot of {_clock_time(reading.snapshot_at)}, writing {_spoken(order)}.")
        with storage.writer(key, content_type=order.content_type, filename=filename) as writer:
            flow = _Flow(writer, order.format.counter(), _compressor(order.compression))
            rows = _stream(lease, order, reading, flow)
            _reconcile(rows, flow)
            lease.check()
            stored = writer.commit()
    _found_whole(storage, stored, flow)
    receipt = _receipt(lease, order, reading, flow)
    published = lease.succeed(
        _summary(flow, time.monotonic() - began),
        lambda conn: _publish(conn, lease, order, key, filename, flow, receipt),
    )
    if not published:
        storage.delete(key)


def _stream(lease: Lease, order: _Order, reading: Reading, flow: _Flow) -> int:
    """Move the whole result; returns the rows read, as the source counted them."""
    options = order.format.copy_options(order.dialect)
    if isinstance(order.report, SqlReport) and options:
        return _copy(lease, statement(order.report, order.values, order.user), reading, flow, options)
    return _rows(lease, order, reading, flow)


def _copy(lease: Lease, query: Statement, reading: Reading, flow: _Flow, options: str) -> int:
    total = reading.estimate(query.sql, query.values)
    lease.log(f"The database expects about {total:,} rows.")
    lease.progress(0, total)
    for block in reading.copy(query.sql, query.values, options):
        flow.write(block)
        lease.progress(reading.rows_read)
    flow.close()
    lease.progress(reading.rows_read, reading.rows_read)
    return reading.rows_read


def _rows(lease: Lease, order: _Order, reading: Reading, flow: _Flow) -> int:
    context = _Context(lease, reading, order)
    counted = _Counted()
    columns = [column.name for column in order.report.columns or ()]
    rows = counted(order.report.rows(order.values, context), len(columns))
    for block in order.format.encode(columns, rows, order.dialect):
        flow.write(block)
        lease.check()
    flow.close()
    lease.progress(counted.rows, counted.rows)
    return counted.rows


class _Counted:
    """Counts the rows a Python report yields, and sees that each has the right width."""

    def __init__(self) -> None:
        self.rows = 0

    def __call__(self, rows: Iterator[Sequence[object]], width: int) -> Iterator[Sequence[object]]:
        for row in rows:
            self.rows += 1
            if len(row) != width:
                raise IncompleteArtifact(
                    f"Row {self.rows:,} has {len(row)} values, but the report promises {width} columns."
                )
            yield row


class _Context:
    """What a Python report may do while it runs; see `app.reports.ReportContext`."""

    def __init__(self, lease: Lease, reading: Reading, order: _Order) -> None:
        self._lease, self._reading = lease, reading
        self.user_email, self.user_id = order.user.email, str(order.user.id)
        self.log, self.progress, self.check = lease.log, lease.progress, lease.check

    def query(self, sql: str, **bound: Any) -> Iterator[tuple[Any, ...]]:
        composed = compose(sql, bound)
        for row in self._reading.rows(composed.sql, composed.values):
            self._lease.check()
            yield row


@dataclass
class _Flow:
    """Counts, compresses, hashes and writes each block, in that order."""

    writer: Writer
    counter: Counter
    compressor: Any
    size: int = 0
    sha: Any = field(default_factory=hashlib.sha256)

    def write(self, block: bytes) -> None:
        self.counter.feed(block)
        self._put(self.compressor.compress(block) if self.compressor else block)

    def close(self) -> None:
        if self.compressor:
            self._put(self.compressor.flush())

    def _put(self, data: bytes) -> None:
        if data:
            self.sha.update(data)
            self.writer.write(data)
            self.size += len(data)


def _compressor(compression: str) -> Any:
    # ISA-L at level 1: as small as zlib's default, at a seventh of its time. 31: a gzip header and trailer.
    return isal_zlib.compressobj(1, isal_zlib.DEFLATED, 31) if compression == "gzip" else None


def _reconcile(rows: int, flow: _Flow) -> None:
    if rows != flow.counter.rows:
        raise IncompleteArtifact(
            f"{rows:,} rows were read, but {flow.counter.rows:,} are in the file. Nothing was published."
        )


def _found_whole(storage: Storage, stored: Stored, flow: _Flow) -> None:
    found = storage.stat(stored.key).bytes
    if not found == stored.bytes == flow.size:
        storage.delete(stored.key)
        raise IncompleteArtifact(
            f"The storage holds {found:,} bytes where {flow.size:,} were written. Nothing was published."
        )


def _receipt(lease: Lease, order: _Order, reading: Reading, flow: _Flow) -> dict[str, Any]:
    return {
        "report": order.report.key,
        "rows": flow.counter.rows,
        "bytes": flow.size,
        "sha256": flow.sha.hexdigest(),
        "params": dict(order.params),
        "source": order.report.source,
        "snapshot_at": reading.snapshot_at.isoformat(),
        "format": order.format.name,
        "dialect": order.dialect,
        "compression": order.compression,
        "attempt": lease.attempt,
    }


def _publish(
    conn: Connection,
    lease: Lease,
    order: _Order,
    key: str,
    filename: str,
    flow: _Flow,
    receipt: dict[str, Any],
) -> None:
    conn.execute(
        insert(Artifact).values(
            job_id=lease.job_id,
            key=key,
            filename=filename,
            content_type=order.content_type,
            bytes=flow.size,
            rows=receipt["rows"],
            sha256=receipt["sha256"],
            receipt=receipt,
            expires_at=func.clock_timestamp() + timedelta(hours=settings.current().retention_hours),
        )
    )


def _source(name: str) -> Source:
    config = settings.current()
    url = config.source_urls.get(name)
    if url is None:
        raise NotFound(f"The source {name!r} is not set up. Set SOURCE_{name.upper()}_URL.")
    return open_source(name, url, timedelta(seconds=config.statement_timeout_seconds))


def _spoken(order: _Order) -> str:
    return f"{order.format.title} ({order.dialect}{', gzip' if order.compression == 'gzip' else ''})"


def _clock_time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _summary(flow: _Flow, seconds: float) -> str:
    rows = flow.counter.rows
    if rows == 0:
        return "Done: no rows matched, so the file holds the header alone."
    return f"Done: {rows:,} rows, {flow.size:,} bytes in {seconds:.1f} s. SHA-256 {flow.sha.hexdigest()}"
