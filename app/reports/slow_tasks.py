"""A report that takes its time, for watching a job: its log, its bar, its cancel button."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from app.reports import Column, Param, Params, Report, ReportContext

# A cancelled job is noticed at least so often, in seconds.
GLANCE = 0.2


class SlowTasks(Report):
    title = "Slow tasks"
    description = "The first tasks, with a pause after each batch. Made to be watched, and cancelled."
    group = "To try out"
    filename = "slow-tasks-{date}"
    params = Params(
        [
            Param("rows", "int", help="How many tasks.", default=2000, required=True, min=1, max=100_000),
            Param("batches", "int", help="In how many parts.", default=20, required=True, min=1, max=100),
            Param(
                "pause",
                "decimal",
                label="Pause in seconds",
                help="After each part; two digits after the point will do.",
                default="0.5",
                required=True,
                min="0",
                max="5",
            ),
        ]
    )
    columns = (
        Column("id", "Number of the task"),
        Column("title", "What is to be done"),
        Column("status", "open, in progress, blocked or done"),
        Column("created_at", "When it was written down (UTC)"),
    )

    def rows(self, params: Mapping[str, Any], context: ReportContext) -> Iterator[Sequence[object]]:
        total, batches, pause = params["rows"], params["batches"], float(params["pause"])
        context.log(f"{total:,} tasks in {batches} parts, {pause:g} s after each.")
        found = context.query(
            "SELECT id, title, status, created_at FROM tasks ORDER BY id LIMIT :rows", rows=total
        )
        done = 0
        for part in range(1, batches + 1):
            for row in islice(found, total * part // batches - total * (part - 1) // batches):
                yield row
                done += 1
            context.progress(done, total)
            context.log(f"Part {part} of {batches}: {done:,} tasks so far.")
            _rest(pause, context)


def _rest(seconds: float, context: ReportContext) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        context.check()
        time.sleep(min(left, GLANCE))
