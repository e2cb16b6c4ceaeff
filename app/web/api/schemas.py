"""The shapes of the API's JSON. What a caller reads in the OpenAPI document is made from these."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Status = Literal["queued", "running", "succeeded", "failed", "cancelled"]
Instant = Annotated[
    str,
    Field(description="RFC 3339, in UTC.", json_schema_extra={"format": "date-time"}),
]


def _without_titles(schema: dict[str, Any]) -> None:
    """Pydantic calls `created_at` "Created At", which says nothing more."""
    for member in schema["properties"].values():
        member.pop("title", None)


def _open(schema: dict[str, Any]) -> None:
    """We answer with no other members today; a caller must live with those of tomorrow."""
    _without_titles(schema)
    del schema["additionalProperties"]


class Question(BaseModel):
    """What a caller sends: these members and no others, so that no typing error goes unnoticed."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_without_titles)


class Shape(BaseModel):
    """What we answer."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_open)


# Reports.


class Column(Shape):
    """One column of a report's file."""

    name: str
    description: str


class Format(Shape):
    """A way to write the rows."""

    name: str = Field(description="What `format` of an export takes.")
    extension: str
    content_type: str
    dialects: list[str] = Field(description="How this format can be spoken; the first is the default.")
    compressions: list[str]


class Report(Shape):
    """A report that you may export."""

    key: str = Field(description="What `report` of an export takes.")
    title: str
    description: str
    group: str
    roles: list[str] = Field(description="Who may export it: people with one of these roles.")
    params: dict[str, Any] = Field(
        description="JSON Schema (2020-12) of the `params` of an export. The words for relative dates "
        "(`last month`) become absolute dates when the export is asked for."
    )
    columns: list[Column] | None = Field(description="What is in the file; null: known once it has run.")
    formats: list[Format]
    bundled: bool = Field(description="Whether its file is a zip archive of several files of the format.")
    url: str = Field(description="The report's page.", json_schema_extra={"format": "uri"})


class Reports(Shape):
    """All reports that you may export."""

    items: list[Report]


# Jobs.


class ExportRequest(Question):
    """An export to be made."""

    model_config = ConfigDict(strict=True)

    report: str = Field(min_length=1, max_length=100, description="The report's key.")
    params: dict[str, Any] = Field(
        default_factory=dict,
        description="Values by name, as the report's JSON Schema says. A name left out takes its default. "
        "A long list of an earlier job may be given as that job shows it, `{sha256, count}`.",
    )
    format: str = Field("csv", max_length=20, description="One of the report's formats.")
    dialect: str | None = Field(
        None,
        max_length=40,
        description="One of the format's dialects; null is its first. For CSV that is `machine` (RFC 4180, "
        "every value as it is); the `spreadsheet` ones open rightly by a double click.",
    )
    compression: str = Field("none", max_length=20, description="One of the format's compressions.")
    columns: list[str] | None = Field(
        None,
        max_length=2000,
        description="The names of the columns to have, in their order; null is all of them.",
    )
    time_zone: str | None = Field(
        None,
        max_length=64,
        description="An IANA name such as `Europe/Berlin`: whose days relative dates are, and whose clock "
        "workbooks and the `spreadsheet` dialects show. Null is your account's own.",
    )
    fresh: bool = Field(
        False,
        description="Never join the same export that is under way, and never be handed the file of an "
        "earlier one.",
    )


class PreflightRequest(Question):
    """An export that you think of asking for."""

    model_config = ConfigDict(strict=True)

    params: dict[str, Any] = Field(default_factory=dict, description="As for an export.")
    format: str = Field("csv", max_length=20)
    dialect: str | None = Field(None, max_length=40)
    compression: str = Field("none", max_length=20)
    columns: list[str] | None = Field(None, max_length=2000, description="As for an export.")
    time_zone: str | None = Field(None, max_length=64, description="As for an export.")
    sample: bool = Field(False, description="Whether to read the first 50 rows, which may take 5 seconds.")


class Sample(Shape):
    """The first rows of a report."""

    columns: list[str]
    rows: list[list[str | None]] = Field(description="Values as text; long ones are cut.")
    trouble: str | None = Field(description="Why there are none; null: nothing went wrong.")
    file: str | None = Field(description="Of several files, the first one's name: these rows are its.")


class Preflight(Shape):
    """What an export would be. Null: not known."""

    rows: int | None = Field(description="What the source's planner expects.")
    bytes: int | None = Field(description="By earlier exports of this report in this format.")
    seconds: float | None = Field(description="By earlier exports of this report.")
    advice: list[str] = Field(description="For people.")
    unknown: str | None = Field(description="Why the rows are not known.")
    sample: Sample | None = Field(description="Null unless it was asked for.")


class ExportHeaders(BaseModel):
    """What the header of an export may say."""

    idempotency_key: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        pattern=r"^[!-~]+$",
        description="A text of your own. Asking again with the same key and the same body makes no second "
        "job: the answer is the first one, with `Idempotent-Replay: true`. With another body: 409.",
    )


class JobsQuery(Question):
    """Which jobs to list."""

    status: Status | None = Field(None, description="Only jobs with this status.")
    limit: int = Field(50, ge=1, le=200, description="How many at most.")
    before: str | None = Field(None, max_length=200, description="Where to go on; comes from `next`.")
    everyone: bool = Field(
        False, description="The jobs of all people, if you are an administrator; yours only otherwise."
    )


class Progress(Shape):
    """How far a job is."""

    done: int = Field(ge=0)
    total: int | None = Field(description="Null: not known. May be an estimate while the job runs.")
    unit: str


class JobError(Shape):
    """Why a job failed."""

    code: str = Field(description="Stable, for programs.")
    message: str = Field(description="For people.")


class Artifact(Shape):
    """The file a job has made."""

    filename: str
    bytes: int
    rows: int
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="Of the file's bytes, in hexadecimal.")
    url: str | None = Field(
        description="The link to the file. It needs no sign-in; null once it is revoked or expired.",
        json_schema_extra={"format": "uri"},
    )
    receipt_url: str | None = Field(
        description="The file's receipt, as JSON: what proves it complete. As good as `url`.",
        json_schema_extra={"format": "uri"},
    )
    snapshot_at: Instant | None = Field(description="When its data were read.")
    expires_at: Instant


class JobImport(Shape):
    """Which step of which import a job is."""

    id: str = Field(json_schema_extra={"format": "uuid"})
    importer: str
    step: Literal["apply", "dry-run", "undo"]
    counts: dict[str, Any] | None = Field(
        description="What the step found or did: Counts, as in the import. Null: not known yet."
    )
    paused_at: Instant | None = Field(description="When it was asked to pause; null: it is not paused.")


class Job(Shape):
    """A request that is being worked on, or was."""

    id: str = Field(json_schema_extra={"format": "uuid"})
    kind: Literal["export", "import"]
    status: Status
    progress: Progress
    attempt: int = Field(
        ge=0, description="The number of the try at hand, or of the last one; 0 before the first."
    )
    error: JobError | None
    artifact: Artifact | None
    report: str | None = Field(description="The report's key; null for an import.")
    title: str
    params: dict[str, Any] = Field(
        description="As they were frozen when the job was asked for. A long list is `{sha256, count}`."
    )
    format: str
    dialect: str
    compression: str
    columns: list[str] | None = Field(description="The chosen columns in their order; null: all.")
    time_zone: str = Field(
        description="Whose days relative dates were, and whose clock a file for spreadsheets shows."
    )
    sharing: Literal["joined", "reused"] | None = Field(
        description="Null: the file is made for this job. `joined`: it waits for, or has, the file of the "
        "same export that was under way; `reused`: of one made shortly before. `artifact.snapshot_at` says "
        "how old its data are."
    )
    import_: JobImport | None = Field(alias="import", description="Of an import; null for an export.")
    created_at: Instant
    started_at: Instant | None
    finished_at: Instant | None
    url: str = Field(description="The job's page.", json_schema_extra={"format": "uri"})


class Jobs(Shape):
    """One page of jobs, newest first."""

    items: list[Job]
    next: str | None = Field(
        description="Where the next page is; null: this is the last. The header `Link` says the same.",
        json_schema_extra={"format": "uri"},
    )


# Uploads.


class UploadRequest(Question):
    """A file to be uploaded."""

    model_config = ConfigDict(strict=True)

    filename: str = Field(min_length=1, max_length=1000, description="What people see. A path is cut off.")
    bytes: int | None = Field(None, ge=0, description="Its size, if you know it: then no byte goes missing.")
    sha256: str | None = Field(
        None,
        pattern=r"^[0-9A-Fa-f]{64}$",
        description="Of the whole file, in hexadecimal. A file that differs is refused.",
    )


class Upload(Shape):
    """A file that is being sent in, or was."""

    id: str = Field(json_schema_extra={"format": "uuid"})
    filename: str
    status: Literal["receiving", "complete", "refused"]
    offset: int = Field(ge=0, description="The bytes that are here; the next one's number, from 0.")
    bytes: int | None = Field(description="As its sender told; null: unknown.")
    sha256: str | None = Field(description="Of the whole file; null: not read through yet.")
    refusal: str | None = Field(description="Why it was refused. For people.")
    created_at: Instant
    expires_at: Instant = Field(description="When it is removed, unless an import needs it for longer.")
    removed_at: Instant | None = Field(description="When its bytes were removed.")
