"""A dry run: the whole file goes the way of an import up to the table, and stops there.

Later chunks are read and checked by threads of their own while earlier ones are compared. The target's table
is never written to, nor are its rows locked; its counts are those that applying would report.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from flask import current_app

from app import settings
from app.imports import ending
from app.imports.chunks import PERCENT_FROM, Records
from app.imports.file.check import Checker
from app.imports.file.cut import Piece, cut
from app.imports.file.plain import Plain
from app.imports.order import Order
from app.imports.rows import Counts, Reject
from app.imports.table import sift
from app.imports.table.connection import BadRows, Target, connect
from app.imports.table.foresight import Foresight, Known
from app.imports.table.merge import outcome
from app.imports.table.plan import Plan
from app.imports.table.ready import Ready, make_ready
from app.leases import Lease

# Threads that read and check, and chunks that are made ready ahead of the one that is compared.
MAKERS, AHEAD = 2, 3
# Changed rows that are shown with what they are now and what they would be.
EXAMPLES = 20


def dry_run(lease: Lease, order: Order) -> None:
    """One attempt, from the file's beginning."""
    began = time.monotonic()
    text = order.plain(lease.check)
    with _connected(order) as target, lease.breaking_off(target.break_off):
        columns = [column.name for column in order.checker(text).columns]
        plan = Plan.of(target, order.importer, order.mode, columns)
        look = _DryRun(lease, order, text, plan, target)
        with _Makers(order, text, plan) as makers:
            look.go(makers)
        refused = _kept(target)
        end = ending.prepare(lease, order, look.counts, refused, "forecast", examples=look.examples)
    lease.check()
    end.succeed(f"{ending.spoken(look.counts)}, in {time.monotonic() - began:.1f} s. Nothing was written.")


class _DryRun:
    def __init__(self, lease: Lease, order: Order, text: Plain, plan: Plan, target: Target) -> None:
        self._lease, self._order, self._text = lease, order, text
        self._target = target
        self._foresight = Foresight(plan, target, order.import_id)
        self._limit_told, self._tenths = False, 0
        self.counts = Counts()
        self.examples: list[dict[str, Any]] = []
        target.run(
            'CREATE TEMP TABLE refused (line bigint, "column" text, code text, message text, record bytea)'
        )

    def go(self, makers: _Makers) -> None:
        self._lease.log(f"Looking at {self._order.upload.filename} ({self._text.size:,} bytes).")
        for piece, ready in makers.ready(self._pieces()):
            self._lease.check()
            self._compare(ready)
            self._tell(piece)
        self._lease.progress(self.counts.read, self.counts.read)

    def _pieces(self) -> Iterator[Piece]:
        """As applying cuts the file."""
        return cut(self._text.open(), self._text.dialect, size=settings.current().chunk_bytes)

    def _compare(self, ready: Ready) -> None:
        self._foresight.expect(ready)
        try:
            counts, rejects = self._compared_whole(ready)
        except BadRows:
            self._foresight.expect_known()
            good = sift.without_bad_rows(self._foresight, self._target, ready, self._lease.check)
            counts, rejects = self._compared(good)
        self.counts += counts
        if rejects:
            rows = [(r.line, r.column, r.code, r.message.replace("\0", ""), r.record) for r in rejects]
            self._target.copy_rows("pg_temp.refused", rows)

    def _compared_whole(self, ready: Ready) -> tuple[Counts, list[Reject]]:
        try:
            return self._compared(ready)
        except Known:
            self._foresight.expect_known()
            return self._compared(ready)

    def _compared(self, ready: Ready) -> tuple[Counts, list[Reject]]:
        foresight = self._foresight
        with self._target.transaction():
            foresight.stage(ready)
            compared = foresight.compare(ready, [])
            missing = EXAMPLES - len(self.examples)
            examples = foresight.examples(missing) if missing and compared.changed else []
            foresight.write(0, compared)
            counts, whole = outcome(ready, compared)
        self.examples += examples
        return counts, list(whole.rejects)

    def _tell(self, piece: Piece) -> None:
        read, share = self.counts.read, piece.end / max(1, self._text.size)
        self._lease.progress(read, round(read / share))
        if int(share * 10) > self._tenths and share < 1:
            self._tenths = int(share * 10)
            self._lease.log(f"{self._tenths * 10} %: {ending.spoken(self.counts)}.")
        if not self._limit_told and (limit := self._passed()):
            self._limit_told = True
            self._lease.log(
                f"{self.counts.refused:,} of the first {read:,} rows are refused, {limit}: applying the file "
                "would stop here. The rest is looked at all the same.",
                "warning",
            )

    def _passed(self) -> str | None:
        """The limit of refused rows that is passed."""
        most, per_cent = self._order.reject_limit, self._order.reject_percent
        refused, read = self.counts.refused, self.counts.read
        if most is not None and refused > most:
            return f"more than {most:,}"
        if per_cent is not None and read >= PERCENT_FROM and refused * 100 > per_cent * read:
            return f"more than {per_cent} %"
        return None


class _Makers:
    """Threads that read and check; each has a checker and, where references are looked up, a connection."""

    def __init__(self, order: Order, text: Plain, plan: Plan) -> None:
        self._order, self._text, self._plan = order, text, plan
        self._app = current_app._get_current_object()  # type: ignore[attr-defined]
        self._own = threading.local()
        self._connections = ExitStack()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(MAKERS, thread_name_prefix="dry-run")

    def __enter__(self) -> _Makers:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._connections.close()

    def ready(self, pieces: Iterator[Piece]) -> Iterator[tuple[Piece, Ready]]:
        """Each piece with its rows, in the order of the pieces."""
        under_way: deque[tuple[Piece, Future[Ready]]] = deque()
        for piece in pieces:
            under_way.append((piece, self._pool.submit(self._make, piece)))
            if len(under_way) > AHEAD:
                first, made = under_way.popleft()
                yield first, made.result()
        for first, made in under_way:
            yield first, made.result()

    def _make(self, piece: Piece) -> Ready:
        with self._app.app_context():
            checker, target = self._tools()
            text = b"".join(self._text.open(piece.start, piece.end))
            checked = checker.check(text, piece.first_line)
            records = Records(text, self._text.dialect, piece.first_line)
            return make_ready(self._plan, target, checked, records)

    def _tools(self) -> tuple[Checker, Target]:
        if not hasattr(self._own, "tools"):
            with self._lock:
                target = self._connections.enter_context(_connected(self._order))
            self._own.tools = self._order.checker(self._text), target
        tools: tuple[Checker, Target] = self._own.tools
        return tools


def _connected(order: Order) -> AbstractContextManager[Target]:
    return connect(order.importer.source, f"waybill {order.import_id} dry run")


def _kept(target: Target) -> Iterator[Reject]:
    query = 'SELECT line, "column", code, message, record FROM pg_temp.refused ORDER BY line'
    for row in target.stream(query):
        yield Reject(*row)
