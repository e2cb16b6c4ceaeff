"""One attempt at an artifact: from the source's snapshot to the row that publishes it."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, func, insert

from app import receipts, settings, storage
from app.errors import WaybillError
from app.exports import bundle, content, parts
from app.exports.flow import Flow, Made, compressor, found_whole, reconcile
from app.exports.order import Order
from app.formats import Unfit, Writing
from app.leases import Lease
from app.models.artifact import Artifact
from app.reports import SqlReport
from app.sources import Again, Reading
from app.storage import artifact_key


def produce(lease: Lease, order: Order) -> None:
    filename = f"{order.report.filename_on(datetime.now(UTC).date())}.{order.extension}"
    key = artifact_key(lease.job_id, lease.attempt, order.extension)
    began = time.monotonic()
    lease.log(f"Connecting to the source {order.report.source!r}.")
    with order.source.reading() as reading, lease.breaking_off(reading.break_off):
        lease.log(f"Reading one snapshot of {_clock_time(reading.snapshot_at)}, writing {_spoken(order)}.")
        made = _made(lease, order, reading, key, filename)
    receipt = _receipt(lease, order, reading, made, filename)
    try:
        receipts.put(key, receipt)
    except WaybillError:
        storage.current().delete(key)
        raise
    published = lease.succeed(
        _summary(order, made, time.monotonic() - began),
        lambda conn: _publish(conn, lease, order, filename, made, receipt),
    )
    if not published:
        receipts.delete(key)


def _made(lease: Lease, order: Order, reading: Reading, key: str, filename: str) -> Made:
    if order.report.bundled:
        return bundle.make(lease, order, reading, key, filename)
    cut = parts.make(lease, order, reading, key, filename)
    return cut or _whole(lease, order, reading, key, filename)


def _whole(lease: Lease, order: Order, reading: Reading, key: str, filename: str) -> Made:
    """The file in one stream, reconciled; begun anew when a column must be wider than it seemed."""
    texts: set[int] = set()
    while True:
        writing = order.writing(texts)
        file = storage.current().writer(key, content_type=order.content_type, filename=filename)
        try:
            with file as writer:
                inner = filename.removesuffix(f".{order.compression}")
                flow = Flow(writer, order.format.counter(), compressor(order.compression, inner))
                rows = _stream(lease, order, reading, writing, flow)
                reconcile(rows, flow.counter.rows)
                lease.check()
                stored = writer.commit()
        except Again as again:
            lease.log(f"{again} Starting the file again.")
        except Unfit as unfit:
            lease.log(f"{unfit} Starting the file again with text in this column.")
            texts.add(unfit.position)
        else:
            found_whole(stored, flow.size)
            for note in writing.notes:
                lease.log(note)
            return Made(stored, rows, flow.counter.rows, flow.sha.hexdigest())


def _stream(lease: Lease, order: Order, reading: Reading, writing: Writing, flow: Flow) -> int:
    """Move the whole result; returns the rows read, as the source counted them."""
    if not isinstance(order.report, SqlReport):
        return _rows(lease, order, reading, writing, flow)
    query = order.query(reading)
    total = reading.estimate(query.sql, query.values)
    if total is not None:
        lease.log(f"The database expects about {total:,} rows.")
    lease.progress(0, total)
    for block in content.of_query(query, reading, writing):
        flow.write(block)
        lease.progress(reading.rows_read)
    flow.close()
    lease.progress(reading.rows_read, reading.rows_read)
    return reading.rows_read


def _rows(lease: Lease, order: Order, reading: Reading, writing: Writing, flow: Flow) -> int:
    counted = content.Counted()
    names, rows = content.of_report(order, content.Context(lease, reading, order.user), counted)
    for block in writing.rows(names, rows):
        flow.write(block)
        lease.check()
    flow.close()
    lease.progress(counted.rows, counted.rows)
    return counted.rows


def _receipt(lease: Lease, order: Order, reading: Reading, made: Made, filename: str) -> dict[str, Any]:
    """What proves the file; docs/api.md tells of every field."""
    snapshots = [part["snapshot_at"] for part in made.parts]
    return {
        "job": str(lease.job_id),
        "report": order.report.key,
        "definition_sha256": order.report.fingerprint,
        "filename": filename,
        "rows_expected": made.rows,
        "rows": made.written,
        "bytes": made.stored.bytes,
        "sha256": made.sha256,
        "params": dict(order.params),
        "columns": order.columns,
        "source": order.report.source,
        "snapshot_at": min(snapshots, default=reading.snapshot_at.isoformat()),
        "format": order.format.name,
        "dialect": order.dialect,
        "compression": order.compression,
        "time_zone": order.clock,
        "attempt": lease.attempt,
        "parts": list(made.parts),
        "members": list(made.members),
        "lookup": made.lookup,
    }


def _publish(
    conn: Connection, lease: Lease, order: Order, filename: str, made: Made, receipt: dict[str, Any]
) -> None:
    conn.execute(
        insert(Artifact).values(
            job_id=lease.job_id,
            key=made.stored.key,
            filename=filename,
            content_type=order.content_type,
            bytes=made.stored.bytes,
            rows=made.rows,
            sha256=made.sha256,
            receipt=receipt,
            expires_at=func.clock_timestamp() + timedelta(hours=settings.current().retention_hours),
        )
    )


def _spoken(order: Order) -> str:
    spoken = [order.dialect, *([order.compression] if order.compression != "none" else [])]
    if order.clock != "UTC":
        spoken.append(f"times in {order.clock}")
    return f"{order.format.title} ({', '.join(spoken)})"


def _clock_time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _summary(order: Order, made: Made, seconds: float) -> str:
    files = f"{len(made.members):,} file{'' if len(made.members) == 1 else 's'}, "
    what = files if order.report.bundled else ""
    if made.rows == 0 and not what:
        return "Done: no rows matched, so the file holds the header alone."
    size = f"{made.rows:,} rows, {made.stored.bytes:,} bytes"
    return f"Done: {what}{size} in {seconds:.1f} s. SHA-256 {made.sha256}"
