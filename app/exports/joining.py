"""Joining the parts of an export to its file, in order, as they are finished.

Each part is read back once: that gives the whole file's SHA-256, and shows that what is stored is what was
written. Where the storage can show a file that is not finished, a joined part is kept there and nowhere else:
it is a checkpoint as before, and the export needs its room on the disk once.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, Self
from uuid import UUID

from flask import current_app
from isal.isal_zlib import crc32
from sqlalchemy import func, select

from app import storage
from app.errors import LeaseLost, ObjectMissing
from app.extensions import db
from app.leases import Lease
from app.models import part as parts
from app.models.part import DONE, Part
from app.storage import Writer

# How long to wait for parts in others' hands before looking again, in seconds.
GLANCE = 0.05


def parts_of(job_id: UUID) -> str:
    """The folder of a job's parts."""
    return f"artifacts/{job_id}/parts"


class Crc32:
    """A checksum that costs next to nothing, for what is proven again by the whole file's SHA-256."""

    def __init__(self) -> None:
        self.value = 0

    def update(self, block: bytes) -> None:
        self.value = crc32(block, self.value)


class Joiner:
    """Adds finished parts to the file, in order, and hashes them on the way, in a thread of its own."""

    def __init__(self, lease: Lease, writer: Writer) -> None:
        self._lease, self._writer = lease, writer
        self._app = current_app._get_current_object()  # type: ignore[attr-defined]
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="joiner")
        self._left = threading.Event()
        self._total = self._count()
        self._whole = f"{parts_of(lease.job_id)}/whole-{lease.attempt}"
        self._moves = writer.expose(self._whole)
        self.sha = hashlib.sha256()
        self.rows = self.size = 0
        self.receipts: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        self._joined = self._pool.submit(self._join_all)
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._pool.shutdown()

    @property
    def complete(self) -> bool:
        """Whether all parts are in the file; raises what stood in the way."""
        return self._joined.done() and self._joined.result() is None

    def wait(self, seconds: float) -> None:
        """Until all parts are in the file, or something stands in the way; `seconds` at most."""
        wait([self._joined], timeout=seconds)

    def forget_objects(self) -> None:
        """Delete the parts, and what attempts that died left of them."""
        for left in storage.current().list(f"{parts_of(self._lease.job_id)}/"):
            storage.current().delete(left.key)

    def _join_all(self) -> None:
        with self._app.app_context():
            while True:
                for part in self._finished():
                    if self._left.is_set() or not self._join(part):
                        break
                if len(self.receipts) == self._total or self._left.wait(GLANCE):
                    return

    def _join(self, part: Any) -> bool:
        sha = self.sha.copy()
        try:
            sound = self._read_back(part, sha)
        except ObjectMissing:
            sound = False
        if not sound:
            self._lease.log(f"Part {part.number} is not what was written; it is made again.", "warning")
            with db.engine.begin() as conn:
                parts.remake(conn, self._lease.job_id, part.number)
            return False
        start = self._writer.bytes
        self._writer.append(part.key, part.start, part.start + part.bytes)
        self._keep(part, start)
        self.sha = sha
        self.rows += part.rows
        self.size += part.bytes
        self.receipts.append(
            {
                "number": part.number,
                "rows": part.rows,
                "bytes": part.bytes,
                "snapshot_at": part.snapshot_at.isoformat(),
            }
        )
        return True

    def _keep(self, part: Any, start: int) -> None:
        """The part's bytes stay in one object: the whole, if they can be found there again."""
        if not self._moves:
            return
        with db.engine.begin() as conn:
            if not parts.move(conn, self._lease.claim, part.number, self._whole, start):
                raise LeaseLost
            needed = parts.are_in(conn, self._lease.job_id, part.key)
        if not needed:
            storage.current().delete(part.key)

    def _read_back(self, part: Any, sha: Any) -> bool:
        check, size = Crc32(), 0
        for block in storage.current().open(part.key, part.start, part.start + part.bytes):
            self._lease.check()
            sha.update(block)
            check.update(block)
            size += len(block)
        return (size, check.value) == (part.bytes, part.crc32)

    def _finished(self) -> Iterator[Any]:
        """The next parts in order, as far as they are done."""
        after = len(self.receipts)
        known = (Part.number, Part.status, Part.key, Part.start, Part.rows, Part.bytes)
        query = (
            select(*known, Part.crc32, Part.snapshot_at)
            .where(Part.job_id == self._lease.job_id, Part.number > after)
            .order_by(Part.number)
        )
        with db.engine.connect() as conn:
            found = conn.execute(query).all()
        for part in found:
            if part.status != DONE:
                return
            yield part

    def _count(self) -> int:
        with db.engine.connect() as conn:
            query = select(func.count()).where(Part.job_id == self._lease.job_id)
            return int(conn.execute(query).scalar_one())
