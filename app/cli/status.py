"""flask status: what is wrong with the installation, and what to do."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import click
from flask.cli import with_appcontext
from sqlalchemy.exc import OperationalError, ProgrammingError

from app import monitoring
from app.cli.tables import table
from app.monitoring import Finding, State
from app.monitoring.findings import counted, span

# Columns of a terminal at night.
WIDTH = 100


@click.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print all that is known, for programs.")
@with_appcontext
@click.pass_context
def status(context: click.Context, as_json: bool) -> None:
    """Say what is wrong and what to do. Exits 1 if something is critical."""
    state: State | None = None
    try:
        state = monitoring.look()
        found = monitoring.findings(state)
    except (OperationalError, ProgrammingError) as error:
        found = [monitoring.away(error)]
    click.echo(json.dumps(_known(state, found), default=str) if as_json else "\n".join(_told(state, found)))
    context.exit(1 if monitoring.level(found) == "critical" else 0)


def _known(state: State | None, found: Sequence[Finding]) -> dict[str, Any]:
    findings = [asdict(finding) for finding in found]
    return {"level": monitoring.level(found), "findings": findings, "state": state and asdict(state)}


def _told(state: State | None, found: Sequence[Finding]) -> Iterator[str]:
    for finding in found:
        yield from textwrap.wrap(f"{finding.level.upper()}: {finding.what}", WIDTH)
        yield from textwrap.wrap(finding.do, WIDTH, initial_indent="  ", subsequent_indent="  ")
        if finding.job_id:
            yield f"  Job {finding.job_id}"
        yield ""
    if not found:
        yield "All is well.\n"
    if state is not None:
        yield from _tables(state)


def _tables(state: State) -> Iterator[str]:
    head = ("QUEUE", "WAITING", "LONGEST", "AT WORK", "LATER", "WORKERS", "THREADS")
    numbers = [(q.at_work, q.later, q.workers, q.threads) for q in state.queues]
    waits = [(q.name, str(q.waiting), span(q.longest_wait) if q.waiting else "-") for q in state.queues]
    yield table(head, [(*wait, *map(str, more)) for wait, more in zip(waits, numbers, strict=True)])
    if state.workers:
        yield ""
        rows = [
            (w.id, " ".join(w.queues), str(w.threads), str(w.jobs), f"{span(w.silent_for)} ago")
            for w in state.workers
        ]
        yield table(("WORKER", "QUEUES", "THREADS", "JOBS", "SEEN"), rows)
    if state.failures:
        yield ""
        failures = [
            (str(one.jobs), str(one.recent), one.definition, one.code, str(one.job_id))
            for one in state.failures
        ]
        yield table(("FAILED IN 24 H", "IN 1 H", "DEFINITION", "REASON", "LAST JOB"), failures)
    yield ""
    yield from _summary(state)


def _summary(state: State) -> Iterator[str]:
    ended = Counter[str]()
    for one in state.ended:
        ended[one.status] += one.jobs
    told = ", ".join(f"{count:,} {status}" for status, count in sorted(ended.items())) or "none"
    mails, kept, clock = state.mails, state.kept, state.clock
    yield f"Jobs ended in 24 h: {told}"
    yield f"Mails: {mails.late:,} late, {mails.given_up:,} given up in 24 h"
    files, uploads = counted(kept.artifacts, "file"), counted(kept.uploads, "upload")
    yield f"Storage: {files} of {kept.artifact_bytes:,} bytes, {uploads} of {kept.upload_bytes:,} bytes"
    yield "Clock: " + (
        "never seen" if clock.silent_for is None else f"last pass {span(clock.silent_for)} ago"
    )
