"""The shapes of imports in the API's JSON."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import ConfigDict, Field

from app.web.api.schemas import Instant, Question, Shape, Status

Step = Literal["apply", "dry-run", "undo"]
Mode = Literal["insert", "upsert", "update", "skip"]
Id = Annotated[str, Field(json_schema_extra={"format": "uuid"})]

MODES = (
    "`insert`: new rows only, one that is there is refused; `upsert`: new rows are inserted, others updated; "
    "`update`: only rows that are there; `skip`: new rows only, others are left alone. "
)


class ImporterColumn(Shape):
    """One column of an importer's table."""

    name: str
    type: str
    label: str
    description: str
    required: bool
    default: str | None = Field(description="Stands in for an empty cell, as text.")
    choices: list[str]
    references: str | None = Field(description="`table.column` of the key by which another row is named.")


class Importer(Shape):
    """What may be imported."""

    key: str = Field(description="What `importer` of an import takes.")
    title: str
    description: str
    group: str
    roles: list[str]
    table: str
    natural_key: list[str] = Field(description="The columns by which rows are the same.")
    modes: list[str] = Field(description="The first one is the default.")
    columns: list[ImporterColumn]
    url: str = Field(description="The page to send a file in.", json_schema_extra={"format": "uri"})


class Importers(Shape):
    """All importers that you may use."""

    items: list[Importer]


class ImportRequest(Question):
    """A file to be imported."""

    importer: str | None = Field(
        None, max_length=100, description="The importer's key; null takes that of `parent`."
    )
    upload: UUID | None = Field(None, description="A complete upload; null if the file comes along.")
    step: Literal["apply", "dry-run"] = Field("apply", description="`dry-run` writes nothing.")
    mode: Mode | None = Field(None, description=MODES + "Null: the importer's first one.")
    mapping: dict[str, int | str | None] | None = Field(
        None,
        max_length=2000,
        description="By the importer's column: the name of the file's column, its place from 0, or null for "
        "none. What is left out is matched by name.",
    )
    dialect: dict[str, Any] | None = Field(
        None,
        max_length=20,
        description="How the file is read, as far as you know better: `encoding`, `delimiter`, `quote`, "
        "`escape`, `skip` (lines before the table), `header`, `decimal`, `dates` (`iso`, `dmy`, `mdy`), "
        "`nulls`, `member` (a workbook's sheet), "
        "`zone` (of times without an offset), `apostrophes` (whether leading ones go). What is left out is "
        "detected.",
    )
    reject_limit: int | None = Field(
        1000, description="Stop when more rows than this are refused; null: never."
    )
    reject_percent: int | None = Field(
        5, description="Stop when more per cent of the rows than this are refused; null: never."
    )
    rate: int | None = Field(None, description="Rows a second at most; null: as fast as it goes.")
    parent: UUID | None = Field(None, description="The import whose refused rows come back, corrected.")


class StepRequest(Question):
    """A step of an import."""

    model_config = ConfigDict(strict=True)

    step: Step


class Counts(Shape):
    """How many rows met which end."""

    read: int
    inserted: int = Field(description="Of an undo: removed again.")
    updated: int = Field(description="Of an undo: put back.")
    unchanged: int = Field(description="The target had just these values.")
    skipped: int = Field(description="Left alone by the mode; of an undo: because they were edited since.")
    superseded: int = Field(description="A later line of the file has the same key, and won.")
    refused: int
    refused_by: dict[str, int] = Field(description="The refused ones by code.")


class Example(Shape):
    """A row that would be updated."""

    line: int
    key: dict[str, str | None]
    changes: dict[str, list[str | None]] = Field(description="By column: what is there, and what would be.")


class ImportJob(Shape):
    """One step of an import."""

    id: Id
    step: Step
    status: Status


class Import(Shape):
    """A file, how it is read, and what came of it."""

    id: Id
    importer: str
    title: str
    upload: Id
    filename: str
    parent: Id | None = Field(description="The import whose refused rows it brought back.")
    mode: Mode
    dialect: dict[str, Any] = Field(description="How the file is read.")
    unsure: dict[str, str] = Field(
        description="What of the dialect the file does not make certain, and how it was taken. For people."
    )
    header: list[str]
    mapping: dict[str, int | None] = Field(
        description="By the importer's column: the place of the file's column, from 0."
    )
    reject_limit: int | None
    reject_percent: int | None
    rate: int | None
    forecast: Counts | None = Field(description="What the dry run found.")
    examples: list[Example] = Field(description="Some rows that would be updated, by the dry run.")
    result: Counts | None = Field(description="What is in, also after it was stopped.")
    undone: Counts | None = Field(description="What the undo did.")
    jobs: list[ImportJob] = Field(description="Its steps in the order they were asked for.")
    created_at: Instant
    url: str = Field(description="The import's page.", json_schema_extra={"format": "uri"})


class ImportsQuery(Question):
    """Which imports to list."""

    limit: int = Field(50, ge=1, le=200, description="How many at most.")
    before: str | None = Field(None, max_length=200, description="Where to go on; comes from `next`.")
    everyone: bool = Field(
        False, description="The imports of all people, if you are an administrator; yours only otherwise."
    )


class Imports(Shape):
    """One page of imports, newest first."""

    items: list[Import]
    next: str | None = Field(
        description="Where the next page is; null: this is the last. The header `Link` says the same.",
        json_schema_extra={"format": "uri"},
    )


def shape() -> dict[str, Any]:
    """ImportRequest as JSON Schema."""
    return ImportRequest.model_json_schema()


def body() -> dict[str, Any]:
    """The body of `createImport`, for the OpenAPI document: JSON, or a form with the file in it."""
    fields = dict(shape()["properties"])
    for name in ("mapping", "dialect"):
        text = fields[name]["description"]
        fields[name] = {"type": "string", "description": f"{text} Written as JSON."}
    file = {"type": "string", "format": "binary", "description": "The file itself; after all other fields."}
    form = {"type": "object", "properties": fields | {"file": file}, "additionalProperties": False}
    example = {
        "importer": "members",
        "upload": "5b0d3a52-6f43-4b9e-8f0e-0d6d3f6f7f21",
        "step": "dry-run",
        "dialect": {"dates": "dmy"},
    }
    return {
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/ImportRequest"},
                "example": example,
            },
            "multipart/form-data": {"schema": form},
        }
    }
