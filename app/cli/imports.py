"""flask imports: send a file in, watch what it does, fetch its refused rows, undo it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

import click
from flask import current_app

from app import jobs, uploads
from app.cli import Group
from app.cli.exports import INTERRUPTED, follow, show
from app.cli.files import check_place, save
from app.cli.people import person
from app.extensions import db
from app.imports import requests
from app.imports.rows import Counts
from app.models.imports import APPLY, DRY_RUN, MODES, UNDO, Import
from app.models.job import SUCCEEDED, Job
from app.settings import current

group = Group("imports", help="Send files in, apply them, and undo them.")

USER = click.option(
    "--user", "email", metavar="EMAIL", help="In whose name; the first administrator if left out."
)
WAIT = click.option(
    "--wait", is_flag=True, help="Show the log until the job is over; exits 1 unless it succeeded."
)


@group.command("create")
@click.argument("key")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--mode", type=click.Choice(MODES), help="What becomes of rows; the importer's own if left out."
)
@click.option("--dry-run", "dry", is_flag=True, help="Tell what would change, and write nothing.")
@click.option(
    "--map",
    "pairs",
    metavar="COLUMN=HEADER",
    multiple=True,
    help="Fill this column from that one of the file; an empty HEADER from none. Many times.",
)
@click.option(
    "--read",
    "readings",
    metavar="NAME=VALUE",
    multiple=True,
    help="How the file is read: delimiter, encoding, quote, skip, header, decimal, dates. Many times.",
)
@click.option("--reject-limit", type=int, metavar="ROWS", help="Stop when more are refused; -1 for never.")
@click.option("--reject-percent", type=int, metavar="N", help="The same in per cent; -1 for never.")
@click.option("--rate", type=int, metavar="ROWS", help="Rows a second at most.")
@click.option("--parent", type=click.UUID, metavar="ID", help="The import whose refused rows come back.")
@USER
@WAIT
@click.option(
    "--rejects",
    type=click.Path(path_type=Path),
    help="Wait, then save the refused rows here, if there are any. A folder: under the file's own name.",
)
def create(
    key: str,
    file: Path,
    mode: str | None,
    dry: bool,
    pairs: tuple[str, ...],
    readings: tuple[str, ...],
    reject_limit: int | None,
    reject_percent: int | None,
    rate: int | None,
    parent: UUID | None,
    email: str | None,
    wait: bool,
    rejects: Path | None,
) -> None:
    """Import FILE with the importer KEY."""
    user = person(email)
    requests.importer_for(user, key)
    check_place(rejects)
    with click.progressbar(length=file.stat().st_size, label="Uploading") as bar:
        upload = uploads.send(user, file, lambda sent: bar.update(sent - bar.pos))
    job = requests.ask(
        user,
        key,
        upload,
        DRY_RUN if dry else APPLY,
        mode=mode,
        mapping={name: header or None for name, header in map(_pair, pairs)} or None,
        dialect={name: _read(name, value) for name, value in map(_pair, readings)} or None,
        limits=_limits(reject_limit, reject_percent, rate),
        parent=requests.find(user, parent) if parent else None,
    )
    _tell_and_wait(job, wait, rejects)


@group.command("apply")
@click.argument("id", type=click.UUID)
@USER
@WAIT
@click.option("--rejects", type=click.Path(path_type=Path), help="As for create.")
def apply(id: UUID, email: str | None, wait: bool, rejects: Path | None) -> None:
    """Apply the import ID after a dry run, or go on with one that stopped."""
    user = person(email)
    check_place(rejects)
    _tell_and_wait(requests.request(user, requests.find(user, id), APPLY), wait, rejects)


@group.command("undo")
@click.argument("id", type=click.UUID)
@USER
@WAIT
@click.option(
    "--left", type=click.Path(path_type=Path), help="Wait, then save here which rows were left alone."
)
def undo(id: UUID, email: str | None, wait: bool, left: Path | None) -> None:
    """Undo the import ID: what it inserted is removed, what it updated is put back."""
    user = person(email)
    check_place(left)
    _tell_and_wait(requests.request(user, requests.find(user, id), UNDO), wait, left)


@group.command("list")
@USER
def list_(email: str | None) -> None:
    """List the latest imports, newest first."""
    found, _ = requests.listing(person(email), everyone=True)
    steps = requests.jobs_of(found)
    for import_ in found:
        last = steps[import_.id][-1] if steps[import_.id] else None
        state = f"{last.step} {last.status}" if last else "to be checked"
        click.echo(f"{import_.id}  {import_.importer}  {state}  {import_.upload.filename}")


def _tell_and_wait(job: Job, wait: bool, output: Path | None) -> None:
    click.echo(f"Queued: {current().public_url.rstrip('/')}/jobs/{job.id}")
    click.echo(f"Import: {job.import_id}")
    if wait or output:
        finish(job.id, output)


def finish(job_id: UUID, output: Path | None) -> None:
    """Show the log to its end, save the rows that were not taken, and exit 1 unless it succeeded."""
    try:
        status = follow(job_id, show)
    except KeyboardInterrupt:
        click.echo("\nNo longer waiting; the job goes on.", err=True)
        raise click.exceptions.Exit(INTERRUPTED) from None
    db.session.rollback()  # a fresh look, not the snapshot of when we began
    job: Job = db.session.get_one(Job, job_id, populate_existing=True)
    import_: Import = db.session.get_one(Import, job.import_id, populate_existing=True)
    if told := _told(job, import_):
        click.echo(told)
    if output:
        _save(job, output)
    if status != SUCCEEDED:
        raise click.ClickException(f"The job is {status}. {job.error_message or ''}".strip())


def _told(job: Job, import_: Import) -> str:
    raw = {APPLY: import_.result, DRY_RUN: import_.forecast, UNDO: import_.undone}[job.step or APPLY]
    if not raw:
        return ""
    counts = Counts.of(raw)
    if job.step == UNDO:
        return f"{counts.updated:,} put back, {counts.inserted:,} removed, {counts.skipped:,} left alone."
    shown = {name: getattr(counts, name) for name in ("read", "inserted", "updated", "unchanged", "refused")}
    shown |= {name: value for name in ("skipped", "superseded") if (value := getattr(counts, name))}
    return ", ".join(f"{value:,} {name}" for name, value in shown.items()) + "."


def _save(job: Job, output: Path) -> None:
    artifact = jobs.artifact_of(job)
    if artifact is None:
        # Of a job that failed before its end nobody can say so.
        if job.status == SUCCEEDED:
            click.echo("Every row was taken; there is no file of others.")
        return
    path = save(current_app.extensions["waybill.storage"], artifact, output)
    click.echo(f"Saved: {path} ({artifact.rows:,} rows, SHA-256 checked)")


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.UsageError(f"{text}: write it as NAME=VALUE.")
    return name.strip(), value


def _read(name: str, value: str) -> Any:
    """A member of a dialect as it is typed: "tab", "none", "yes"."""
    if name == "header":
        return value.lower() in ("yes", "true", "1")
    if name == "skip":
        return int(value) if value.isdecimal() else value
    if name == "nulls":
        return [text for text in value.split(",") if text]
    words = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "none": None}
    return words.get(value, value) if name in ("delimiter", "quote", "escape") else value


def _limits(rows: int | None, percent: int | None, rate: int | None) -> requests.Limits:
    usual = requests.Limits()
    return requests.Limits(
        reject_limit=usual.reject_limit if rows is None else None if rows < 0 else rows,
        reject_percent=usual.reject_percent if percent is None else None if percent < 0 else percent,
        rate=rate,
    )
