"""One attempt at an artifact: from the source's snapshot to the row that publishes it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from flask import current_app
from sqlalchemy import Connection, func, insert

from app import settings
from app.errors import (
    IncompleteArtifact,
    NotFound,
)
from app.exports.flow import Flow, compressor, found_whole, reconcile
from app.exports.order import Order
from app.formats import Unfit, Writing
from app.leases import Lease
from app.models.artifact import Artifact
from app.reports import SqlReport, Statement, compose, statement
from app.sources import Reading, Source, open_source
from app.storage import Storage, Stored, artifact_key


def produce(lease: Lease, order: Order) -> None:
    storage = cast(Storage, current_app.extensions["waybill.storage"])
    source = _source(order.report.source)
    filename = f"{order.report.filename_on(datetime.now(UTC).date())}.{order.extension}"
    key = artifact_key(lease.job_id, lease.attempt, order.extension)
    began = time.monotonic()
    lease.log(f"Connecting to the source {order.report.source!r}.")
    with source.reading() as reading, lease.breaking_off(reading.break_off):
        lease.log(f"Reading one snapshot of {_clock_time(reading.snapshot_at)}, writing {_spoken(order)}.")
        stored, flow = _written(lease, order, reading, storage, key, filename)
    found_whole(storage, stored, flow)
    receipt = _receipt(lease, order, reading, flow)
    published = lease.succeed(
        _summary(flow, time.monotonic() - began),
        lambda conn: _publish(conn, lease, order, key, filename, flow, receipt),
    )
    if not published:
        storage.delete(key)


def _written(
    lease: Lease, order: Order, reading: Reading, storage: Storage, key: str, filename: str
) -> tuple[Stored, Flow]:
    """The whole file, stored and reconciled; begun anew when a column must be wider than it seemed."""
    texts: set[int] = set()
    while True:
        writing = order.format.writing(order.dialect, texts=texts)
        try:
            with storage.writer(key, content_type=order.content_type, filename=filename) as writer:
                inner = filename.removesuffix(f".{order.compression}")
                flow = Flow(writer, order.format.counter(), compressor(order.compression, inner))
                rows = _stream(lease, order, reading, writing, flow)
                reconcile(rows, flow)
                lease.check()
                stored = writer.commit()
        except Unfit as unfit:
            lease.log(f"{unfit} Starting the file again with text in this column.")
            texts.add(unfit.position)
        else:
            for note in writing.notes:
                lease.log(note)
            return stored, flow


def _stream(lease: Lease, order: Order, reading: Reading, writing: Writing, flow: Flow) -> int:
    """Move the whole result; returns the rows read, as the source counted them."""
    if not isinstance(order.report, SqlReport):
        return _rows(lease, order, reading, writing, flow)
    query = statement(order.report, order.values, order.user)
    total = reading.estimate(query.sql, query.values)
    lease.log(f"The database expects about {total:,} rows.")
    lease.progress(0, total)
    for block in _query(query, reading, writing):
        flow.write(block)
        lease.progress(reading.rows_read)
    flow.close()
    lease.progress(reading.rows_read, reading.rows_read)
    return reading.rows_read


def _query(query: Statement, reading: Reading, writing: Writing) -> Iterator[bytes]:
    """The file as the database writes it if it can, else made from its columns."""
    copy = writing.copy(lambda: reading.fields(query.sql, query.values))
    if copy:
        yield copy.head
        yield from reading.copy(query.sql, query.values, copy)
    else:
        fields = reading.fields(query.sql, query.values)
        yield from writing.batches(fields, reading.batches(query.sql, query.values))


def _rows(lease: Lease, order: Order, reading: Reading, writing: Writing, flow: Flow) -> int:
    context = _Context(lease, reading, order)
    counted = _Counted()
    columns = [column.name for column in order.report.columns or ()]
    rows = counted(order.report.rows(order.values, context), len(columns))
    for block in writing.rows(columns, rows):
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

    def __init__(self, lease: Lease, reading: Reading, order: Order) -> None:
        self._lease, self._reading = lease, reading
        self.user_email, self.user_id = order.user.email, str(order.user.id)
        self.log, self.progress, self.check = lease.log, lease.progress, lease.check

    def query(self, sql: str, **bound: Any) -> Iterator[tuple[Any, ...]]:
        composed = compose(sql, bound)
        for row in self._reading.rows(composed.sql, composed.values):
            self._lease.check()
            yield row


def _receipt(lease: Lease, order: Order, reading: Reading, flow: Flow) -> dict[str, Any]:
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
    order: Order,
    key: str,
    filename: str,
    flow: Flow,
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


def _spoken(order: Order) -> str:
    spoken = [order.dialect, *([order.compression] if order.compression != "none" else [])]
    return f"{order.format.title} ({', '.join(spoken)})"


def _clock_time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _summary(flow: Flow, seconds: float) -> str:
    rows = flow.counter.rows
    if rows == 0:
        return "Done: no rows matched, so the file holds the header alone."
    return f"Done: {rows:,} rows, {flow.size:,} bytes in {seconds:.1f} s. SHA-256 {flow.sha.hexdigest()}"
