"""flask exports: ask for an export, watch it, and fetch its file."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import click
from flask import current_app
from flask.cli import ScriptInfo

from app import events, jobs, lists, receipts
from app.cli import Group
from app.cli.files import check_place, receipt_of, save
from app.cli.people import person
from app.errors import NotFound
from app.extensions import db
from app.models.artifact import Artifact
from app.models.job import FINAL, QUEUED, SUCCEEDED, Job
from app.params import Param, did_you_mean
from app.reports import Report, registry
from app.settings import current
from app.storage import Storage

# How often a waiting command asks the database for new lines, in seconds.
POLL = 0.2
# How long a job may be queued before a waiting command says that nobody listens, in seconds.
PATIENCE = 5.0
INTERRUPTED = 130

group = Group("exports", help="Ask for exports and fetch their files.")

METAVARS = {
    "text": "TEXT",
    "int": "NUMBER",
    "decimal": "NUMBER",
    "bool": "yes|no",
    "date": "DATE",
    "datetime": "TIME",
}


class Create(click.Command):
    """Knows the params of the report that is named on the command line as options of its own."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta["report"] = self._report(ctx, args)
        return super().parse_args(ctx, args)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        report: Report | None = ctx.meta.get("report")
        found = super().get_params(ctx)
        if report is None:
            return found
        taken = {flag for param in found for flag in param.opts}
        return [*(option for option in map(option_of, report.params) if option.opts[0] not in taken), *found]

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_help_text(ctx, formatter)
        report: Report | None = ctx.meta.get("report")
        if report is not None:
            with formatter.section(report.title):
                formatter.write_text(report.description)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The report's own params first, under a head of their own."""
        own: list[tuple[str, str]] = []
        general: list[tuple[str, str]] = []
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and isinstance(param, click.Option):
                (own if isinstance(param, ReportOption) else general).append(record)
        for head, records in (("Parameters of this report", own), ("Options", general)):
            if records:
                with formatter.section(head):
                    formatter.write_dl(records)

    def _report(self, ctx: click.Context, args: list[str]) -> Report | None:
        """The report among the arguments, if there is one: what is wrong with the rest is told later."""
        found = ctx.ensure_object(ScriptInfo).load_app().extensions["waybill.reports"]
        return next((found.get(word) for word in args if word in found), None)


class ReportOption(click.Option):
    """One param of a report, as an option."""


def option_of(param: Param) -> ReportOption:
    """`--created-since DATE` for the param `created_since`."""
    choices = "|".join(choice.value for choice in param.choices)
    return ReportOption(
        [f"--{param.name.replace('_', '-')}", f"own_{param.name}"],
        metavar=f"[{choices}]" if choices else METAVARS.get(param.type, "A,B,…"),
        multiple=param.type == "list",
        help=_help(param),
    )


def _help(param: Param) -> str:
    """Label, help, and what happens without it."""
    words = [f"{param.label}.", param.help]
    if param.type == "list":
        words.append("May be given many times.")
    if param.default is not None:
        words.append(f"[default: {_typed(param.default)}]")
    elif param.required:
        words.append("[required]")
    return " ".join(filter(None, words))


def _typed(default: object) -> str:
    """A default as it would be typed."""
    if isinstance(default, bool):
        return "yes" if default else "no"
    return ",".join(map(str, default)) if isinstance(default, (list, tuple)) else str(default)


@group.command("create", cls=Create)
@click.argument("key")
@click.option("--param", "-p", "pairs", metavar="NAME=VALUE", multiple=True, help="A parameter; many times.")
@click.option(
    *("--param-file", "files"),
    metavar="NAME=PATH",
    multiple=True,
    help="A list from a file: text, CSV or a workbook (.xlsx).",
)
@click.option(
    *("--param-column", "headers"),
    metavar="NAME=HEADER",
    multiple=True,
    help="Which column of that file; else the one named like the parameter, else the first.",
)
@click.option(
    "--format", "format_name", default="csv", show_default=True, metavar="NAME", help="How rows are written."
)
@click.option("--dialect", metavar="NAME", help="How the format is spoken, if in several ways.")
@click.option("--gzip", "compression", flag_value="gzip", help="Compress the file with gzip.")
@click.option("--zip", "compression", flag_value="zip", help="Put the file into a zip archive.")
@click.option("--columns", metavar="A,B,…", help="Which columns, in which order; all if left out.")
@click.option("--time-zone", metavar="NAME", help="Whose days and clock are meant; the person's if left out.")
@click.option("--fresh", is_flag=True, help="Make a new file: neither join nor reuse an earlier export.")
@click.option("--user", "email", metavar="EMAIL", help="In whose name; the first administrator if left out.")
@click.option("--wait", is_flag=True, help="Show the log until the job is over; exits 1 unless it succeeded.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Wait, then save the file here, its SHA-256 checked. A folder: under the file's own name.",
)
def create(
    key: str,
    pairs: tuple[str, ...],
    files: tuple[str, ...],
    headers: tuple[str, ...],
    format_name: str,
    dialect: str | None,
    compression: str | None,
    columns: str | None,
    time_zone: str | None,
    fresh: bool,
    email: str | None,
    wait: bool,
    output: Path | None,
    **own: str | tuple[str, ...] | None,
) -> None:
    """Export the report KEY.

    With a KEY, --help shows the report's own parameters; each is an option, too.
    """
    report = registry().get(key)
    check_place(output)
    job = jobs.request_export(
        person(email),
        key,
        raw_params(report, own, pairs) | from_files(report, files, headers),
        format=format_name,
        dialect=dialect,
        compression=compression or "none",
        columns=[name.strip() for name in columns.split(",")] if columns else None,
        time_zone=time_zone,
        fresh=fresh,
    )
    word = "Done already" if job.final else "Queued"
    click.echo(f"{word}: {current().public_url.rstrip('/')}/jobs/{job.id}")
    if wait or output:
        finish(job.id, output)


@group.command("verify")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--receipt",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The receipt; FILE.receipt.json if left out.",
)
@click.option("--job", "job_id", type=click.UUID, help="Check against the receipt of this job instead.")
def verify(file: Path, receipt: Path | None, job_id: UUID | None) -> None:
    """Check that FILE is, byte for byte, what its receipt says; exits 1 and tells the difference if not."""
    if receipt and job_id:
        raise click.UsageError("Use --receipt or --job, not both.")
    told = _receipt(job_id) if job_id else receipts.read(receipt or receipt_of(file))
    found = receipts.differences(file, told)
    for difference in found:
        click.echo(difference, err=True)
    if found:
        raise click.ClickException(f"{file} is not the file of its receipt.")
    files = f"{len(told['members']):,} files, " if told.get("members") else ""
    click.echo(
        f"{file} is whole: {files}{told['rows']:,} rows, {told['bytes']:,} bytes, SHA-256 {told['sha256']}, "
        f"read at {told.get('snapshot_at', 'an unknown time')}."
    )


def _receipt(job_id: UUID) -> dict[str, Any]:
    artifact = db.session.scalar(db.select(Artifact).where(Artifact.job_id == job_id))
    if artifact is None:
        raise NotFound(f"There is no job {job_id} with a file.")
    return dict(artifact.receipt)


def raw_params(report: Report, own: dict[str, Any], pairs: tuple[str, ...]) -> dict[str, object]:
    """What was typed, by param: options first, `--param` over them. A list gathers all its values."""
    given = [(name.removeprefix("own_"), value) for name, value in own.items() if value not in (None, ())]
    given += split("--param", pairs)
    lists = {param.name for param in report.params if param.type == "list"}
    raw: dict[str, object] = {}
    for name, value in given:
        if name in lists:
            before = raw.get(name)
            values = [value] if isinstance(value, str) else value
            raw[name] = "\n".join([*([str(before)] if before else []), *values])
        else:
            raw[name] = value
    return raw


def from_files(report: Report, files: tuple[str, ...], headers: tuple[str, ...]) -> dict[str, object]:
    """Lists from files, by param. Raises UsageError, InvalidParams."""
    columns = dict(split("--param-column", headers))
    raw: dict[str, object] = {}
    for name, path in split("--param-file", files):
        param = report.params.get(name)
        if param is None or param.type != "list":
            named = [param.name for param in report.params if param.type == "list"]
            raise click.UsageError(
                f"--param-file {name}: this is no list of the report.{did_you_mean(name, named)}"
            )
        try:
            with Path(path).open("rb") as file:
                raw[name] = lists.from_file(report, param, file, columns.pop(name, None))
        except OSError as error:
            raise click.UsageError(f"--param-file {name}: {path} can't be read: {error.strerror}.") from None
    if columns:
        raise click.UsageError(f"--param-column {min(columns)}: there is no --param-file of that name.")
    return raw


def split(option: str, pairs: tuple[str, ...]) -> list[tuple[str, str]]:
    """NAME=VALUE, many times."""
    for pair in pairs:
        if "=" not in pair:
            raise click.UsageError(f"{option} {pair}: write it as NAME=VALUE.")
    return [(name, value) for name, _, value in (pair.partition("=") for pair in pairs)]


def finish(job_id: UUID, output: Path | None) -> None:
    """Show the log to its end; then save the file, or exit 1."""
    try:
        status = follow(job_id, show)
    except KeyboardInterrupt:
        click.echo("\nNo longer waiting; the job goes on.", err=True)
        raise click.exceptions.Exit(INTERRUPTED) from None
    if status != SUCCEEDED:
        raise click.ClickException(f"The job is {status}. Its file was not made.")
    artifact = jobs.artifact_of(_job(job_id))
    if artifact is None:
        raise NotFound("The job succeeded, but its file is not there any more.")
    if output is None:
        click.echo(f"File: {jobs.link_url(artifact)}")
        return
    storage: Storage = current_app.extensions["waybill.storage"]
    path = save(storage, artifact, output)
    click.echo(f"Saved: {path} ({artifact.bytes:,} bytes, SHA-256 checked)")


def follow(job_id: UUID, say: Callable[[events.Line], None]) -> str:
    """Call `say` with every line, from the first to the last, as they come; returns the final status."""
    seen = 0
    began, warned = time.monotonic(), False
    while True:
        state = events.states([job_id]).get(job_id)
        if state is None:
            raise NotFound("The job was taken away while it was being waited for.")
        while lines := events.after(job_id, seen):
            for line in lines:
                say(line)
            seen = lines[-1].number
        if state.status in FINAL and seen >= state.last_event:
            return str(state.status)
        if state.status == QUEUED and not warned and time.monotonic() - began > PATIENCE:
            warned = True
            _warn_if_nobody_listens(job_id)
        time.sleep(POLL)


def show(line: events.Line) -> None:
    colour = {"warning": "yellow", "error": "red"}.get(line.level)
    click.echo(f"{line.at.astimezone():%H:%M:%S}  {click.style(line.text, fg=colour)}")


def _warn_if_nobody_listens(job_id: UUID) -> None:
    queue = _job(job_id).queue
    if not jobs.listening(queue):
        click.echo(f"No worker is listening to the queue {queue!r}; the job waits for one.", err=True)


def _job(job_id: UUID) -> Job:
    db.session.rollback()  # a fresh look, not the snapshot of when we began
    job: Job = db.session.get_one(Job, job_id)
    return job
