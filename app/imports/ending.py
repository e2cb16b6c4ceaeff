"""How a step of an import ends: its counts with the import, and the refused rows as the job's file.

Every step that refuses rows ends through here, an apply and a dry run alike, however it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from pathlib import PurePath
from typing import Any, Literal

from sqlalchemy import Connection, func, update
from sqlalchemy.dialects.postgresql import insert

from app import receipts, settings, storage
from app.exports.flow import Out, found_whole
from app.imports.file import rejects as files
from app.imports.order import Order
from app.imports.rows import Counts, Reject
from app.leases import Lease
from app.models.artifact import Artifact
from app.models.imports import Import
from app.storage import artifact_key

CONTENT_TYPE = "text/csv; charset=utf-8"

Recorder = Callable[[Connection], None]


@dataclass(frozen=True)
class Ending:
    """What is to be recorded in the transaction that ends the job. `what` is a column of `Import`."""

    lease: Lease
    order: Order
    counts: Counts
    what: Literal["forecast", "result", "undone"]
    # Beside the counts, such as a dry run's examples.
    more: dict[str, Any]
    file: dict[str, Any] | None

    def record(self, conn: Connection) -> None:
        told = self.counts.as_json() | self.more
        conn.execute(
            update(Import).where(Import.id == self.order.import_id).values({getattr(Import, self.what): told})
        )
        if self.file:
            expiry = func.clock_timestamp() + timedelta(hours=settings.current().retention_hours)
            values = self.file | {"job_id": self.lease.job_id, "expires_at": expiry}
            statement = insert(Artifact).values(values)
            # An earlier attempt may have ended with a file of its own; the sweep takes its bytes away.
            fresh = {Artifact.removed_at: None, Artifact.link_revoked_at: None}
            named = {getattr(Artifact, name): value for name, value in values.items()}
            conn.execute(
                statement.on_conflict_do_update(index_elements=[Artifact.job_id], set_=named | fresh)
            )

    def succeed(self, text: str) -> None:
        self._settle(self.lease.succeed(text, self.record))

    def fail(self, code: str, message: str) -> None:
        self._settle(self.lease.fail(code, message, self.record))

    def cancelled(self, text: str) -> None:
        self._settle(self.lease.cancelled(text, self.record))

    def _settle(self, ours: bool) -> None:
        """If the job was another's by then, the file goes away again."""
        if self.file and not ours:
            receipts.delete(self.file["key"])


def spoken(counts: Counts) -> str:
    """1,234 rows: 1,200 inserted, 34 refused."""
    told = {
        "inserted": counts.inserted,
        "updated": counts.updated,
        "unchanged": counts.unchanged,
        "skipped": counts.skipped,
        "superseded": counts.superseded,
        "refused": counts.refused,
    }
    parts = ", ".join(f"{count:,} {name}" for name, count in told.items() if count)
    return f"{counts.read:,} row{'' if counts.read == 1 else 's'}" + (f": {parts}" if parts else "")


def prepare(
    lease: Lease,
    order: Order,
    counts: Counts,
    rejects: Iterable[Reject],
    what: Literal["forecast", "result", "undone"] = "result",
    **more: Any,
) -> Ending:
    """Write the rejects to the storage, if there are any. Raises the storage's errors."""
    file, found = None, iter(rejects)
    # Not by the counts: those of a chunk that was not merged are told, too.
    if first := next(found, None):
        file = keep(
            *(lease, order, counts, "refused"),
            lambda sink: files.write(chain([first], found), order.header, order.text_dialect, sink),
        )
    return Ending(lease, order, counts, what, more, file)


class Sink(Out):
    def write(self, data: bytes, /) -> None:
        self.put(data)


def keep(
    lease: Lease, order: Order, counts: Counts, name: str, write: Callable[[Sink], int]
) -> dict[str, Any]:
    """Put a CSV file of the job into the storage; `write` gives it its content and returns the rows."""
    filename = f"{PurePath(order.upload.filename.split('.')[0] or 'rows').name}-{name}.csv"
    key = artifact_key(lease.job_id, lease.attempt, "csv")
    with storage.current().writer(key, content_type=CONTENT_TYPE, filename=filename) as writer:
        sink = Sink(writer)
        rows = write(sink)
        stored = writer.commit()
    found_whole(stored, sink.size)
    proof = {"rows": rows, "bytes": stored.bytes, "sha256": sink.sha.hexdigest()}
    receipt = proof | {
        "job": str(lease.job_id),
        "import": str(order.import_id),
        "importer": order.importer.key,
        "definition_sha256": order.importer.fingerprint,
        "filename": filename,
        "format": "csv",
        "compression": "none",
        "counts": counts.as_json(),
        "attempt": lease.attempt,
    }
    receipts.put(key, receipt)
    file = {"key": stored.key, "filename": filename, "content_type": CONTENT_TYPE, "receipt": receipt}
    return proof | file
