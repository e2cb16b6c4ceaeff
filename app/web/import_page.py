"""An import's page: what stands in its form, and what may be said of it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from werkzeug.datastructures import MultiDict

from app import jobs
from app.errors import NotFound, WaybillError
from app.importers import Column, Importer
from app.imports import mapping, requests
from app.imports.file import correction, encodings, plain
from app.imports.file.detect import Reason, samples
from app.imports.file.dialect import Dialect
from app.imports.requests import Limits
from app.imports.rows import Counts
from app.models.imports import APPLY, DRY_RUN, INSERT, SKIP, UNDO, UPDATE, UPSERT, Import
from app.models.job import Job
from app.web.people import me

if TYPE_CHECKING:
    from app.imports.preview import Preview

# Fields of the form: where a column of the target comes from, and how the file is read.
MAP, READ = "map.", "dialect."
# What each mode does, in a sentence.
MODES = {
    UPSERT: (
        "Insert and update",
        "New rows are inserted; rows that are there already get the file's values.",
    ),
    INSERT: ("Insert only", "New rows are inserted; a row that is there already is refused."),
    UPDATE: ("Update only", "Rows that are there already get the file's values; others are left alone."),
    SKIP: ("Insert, skip existing", "New rows are inserted; rows that are there already are left alone."),
}
# What rows are refused for, in words; a code of an importer's own speaks for itself.
REASONS = {
    "required": "Empty, but needed",
    "type": "No such number, date or the like",
    "choice": "None of the values that there are",
    "min": "Too small",
    "max": "Too large",
    "max_length": "Too long",
    "too_long": "Too long",
    "out_of_range": "Larger than the column holds",
    "pattern": "Not in the form that is asked for",
    "duplicate": "Twice in the file",
    "not_unique": "Taken by another row",
    "exists": "There already",
    "unknown_reference": "Names something that is not there",
    "ragged": "More or fewer cells than columns",
    "unclosed_quote": "A quote that is not closed",
    "stray_return": "A stray carriage return",
    "nul": "A NUL character",
    "not_utf8": "Not in the file's encoding",
    "rule": "Against a rule of the table",
    "conflict": "In conflict with another row",
}
DELIMITERS = {
    "comma": (",", "Comma ,"),
    "semicolon": (";", "Semicolon ;"),
    "tab": ("\t", "Tab"),
    "pipe": ("|", "Pipe |"),
    "caret": ("^", "Caret ^"),
    "tilde": ("~", "Tilde ~"),
    "colon": (":", "Colon :"),
    "space": (" ", "Space"),
    "unit": ("\x1f", "Unit separator"),
}
QUOTES = {"double": ('"', 'Double "'), "single": ("'", "Single '"), "none": (None, "None: quotes are text")}
ESCAPES = {"doubled": (None, "Doubled quotes"), "backslash": ("\\", "Backslash \\")}
DECIMALS = {"point": (".", "Point: 1,234.50"), "comma": (",", "Comma: 1.234,50")}
APOSTROPHES = {"no": (False, "Text like any other"), "yes": (True, "Go: '0012 is 0012")}
HEADERS = {"yes": (True, "The first row"), "no": (False, "None")}
# By member of a dialect: the choices of its field, as what is posted -> (value, words).
CHOICES: dict[str, dict[str, tuple[Any, str]]] = {
    "encoding": {name: (name, words) for name, words in encodings.CHOICES.items()},
    "delimiter": DELIMITERS,
    "quote": QUOTES,
    "escape": ESCAPES,
    "header": HEADERS,
    "decimal": DECIMALS,
    "apostrophes": APOSTROPHES,
    "dates": {
        name: (name, f"{words}: {correction.ORDERS[name]}")
        for name, words in (("iso", "Year first"), ("dmy", "Day first"), ("mdy", "Month first"))
    },
}
LABELS = {
    "encoding": "Encoding",
    "delimiter": "Delimiter",
    "quote": "Quotes",
    "escape": "A quote within quotes",
    "header": "Header",
    "decimal": "Decimal mark",
    "apostrophes": "Leading apostrophes",
    "dates": "Dates",
}


def read(form: MultiDict[str, str]) -> dict[str, Any]:
    """Members of a dialect as they were posted."""
    found: dict[str, Any] = {}
    for name, choices in CHOICES.items():
        posted = form.get(READ + name)
        if posted is not None:
            found[name] = choices[posted][0] if posted in choices else posted
    if (skip := form.get(READ + "skip")) is not None:
        found["skip"] = int(skip) if skip.strip().isdecimal() and len(skip) < 10 else skip or 0
    if (nulls := form.get(READ + "nulls")) is not None:
        found["nulls"] = tuple(text.strip() for text in nulls.split(",") if text.strip())
    if zone := form.get(READ + "zone", "").strip():
        found["zone"] = zone
    if member := form.get(READ + "member"):
        found["member"] = member
    return found


def place(posted: str) -> Any:
    return int(posted) if posted.isdecimal() and len(posted) < 7 else posted or None


def limits(form: MultiDict[str, str]) -> Limits:
    return Limits(**{name: _number(form, name) for name in ("reject_limit", "reject_percent", "rate")})


def _number(form: MultiDict[str, str], name: str) -> Any:
    posted = form.get(name, "").strip().replace(",", "")
    return None if not posted else int(posted) if posted.isdecimal() and len(posted) < 16 else -1


@dataclass(frozen=True)
class Choice:
    """One member of the dialect on the form."""

    name: str
    options: list[tuple[str, str, bool]]
    reason: Reason | None
    error: str | None

    @property
    def label(self) -> str:
        return LABELS[self.name]

    @property
    def field(self) -> str:
        return READ + self.name


@dataclass(frozen=True)
class Place:
    """One column of the target on the form, and the file's column that goes there."""

    column: Column
    place: int | None
    values: list[str]
    key: bool
    required: bool
    error: str | None

    @property
    def field(self) -> str:
        return MAP + self.column.name

    @property
    def called(self) -> str:
        return mapping.called(self.column)


@dataclass
class View:
    """What an import's page asks about it; each answer is looked up when the template first asks."""

    import_: Import
    posted: MultiDict[str, str] | None = None
    errors: dict[str, str] = field(default_factory=dict)
    nonce: str = field(default_factory=lambda: secrets.token_urlsafe(16))

    @cached_property
    def now(self) -> datetime:
        return jobs.database_now()

    @cached_property
    def importer(self) -> Importer | None:
        """Its definition as it is today; None if it is gone or not this person's any more."""
        try:
            return requests.importer_for(me(), self.import_.importer)
        except NotFound:
            return None

    @cached_property
    def jobs(self) -> list[Job]:
        return requests.jobs_of([self.import_])[self.import_.id]

    def latest(self, step: str) -> Job | None:
        return next((job for job in reversed(self.jobs) if job.step == step), None)

    @property
    def dry(self) -> Job | None:
        return self.latest(DRY_RUN)

    @property
    def applied(self) -> Job | None:
        """The latest job that applied it, if one ever began or is to begin."""
        job = self.latest(APPLY)
        return job if job and (job.started_at or job.attempt or not job.final) else None

    @property
    def undo(self) -> Job | None:
        return self.latest(UNDO)

    @property
    def at_work(self) -> Job | None:
        return next((job for job in self.jobs if not job.final), None)

    @property
    def open(self) -> bool:
        """Whether it may still be corrected and dry-run."""
        return self.importer is not None and not self.applied and not self.gone

    @property
    def gone(self) -> bool:
        return self.import_.upload.removed_at is not None

    @property
    def stage(self) -> int:
        """1 Upload, 2 Check, 3 Apply."""
        return 3 if self.applied else 2

    @property
    def others(self) -> bool:
        """Somebody else's, seen by an administrator."""
        return self.import_.owner_id != me().id

    @cached_property
    def dialect(self) -> Dialect:
        return Dialect.of(self.import_.dialect)

    @property
    def asks_for_zone(self) -> bool:
        """Whether moments come in, which a file may write without their offset."""
        importer = self.importer
        return importer is not None and any(column.type == "datetime" for column in importer.columns)

    @cached_property
    def members(self) -> list[str]:
        """The sheets to choose from; [] where there is no choice."""
        found = requests.members(self.import_)
        return found if self.dialect.content == "xlsx" and len(found) > 1 else []

    @cached_property
    def choices(self) -> list[Choice]:
        """How the file is read, member by member; of a workbook only what is not certain by itself."""
        why = requests.reasons(self.import_)
        shown = ["header"] if self.dialect.content == "xlsx" else list(CHOICES)
        return [
            Choice(name, self._options(name), why.get(name), self.errors.get(READ + name)) for name in shown
        ]

    def _options(self, name: str) -> list[tuple[str, str, bool]]:
        """(what is posted, words, chosen)"""
        value = getattr(self.dialect, name)
        found = [(key, words, value == mine) for key, (mine, words) in CHOICES[name].items()]
        if not any(chosen for _, _, chosen in found):
            found.append((value or "", repr(value), True))
        return found

    @cached_property
    def unsure(self) -> list[str]:
        """What a person should look at."""
        return [choice.reason.text for choice in self.choices if choice.reason and not choice.reason.sure]

    @cached_property
    def skip_reason(self) -> Reason | None:
        return requests.reasons(self.import_).get("skip")

    @cached_property
    def places(self) -> list[Place]:
        importer, import_ = self.importer, self.import_
        if importer is None:
            return []
        found = samples(self._head.decode("utf-8", "replace"), self._spoken)
        return [
            Place(
                column,
                place := self._chosen(column.name, import_.mapping.get(column.name)),
                found[place] if place is not None and place < len(found) else [],
                column.name in importer.natural_key,
                column.required and column.default is None,
                self.errors.get(f"mapping.{column.name}"),
            )
            for column in importer.columns
        ]

    def _chosen(self, name: str, saved: int | None) -> int | None:
        """The place that was posted, if it is one of the file's and was not saved; else the saved one."""
        posted = place(self._typed.get(MAP + name, ""))
        same = self._typed.get("header-sha256") == self.fingerprint
        return posted if same and isinstance(posted, int) else saved

    @property
    def _typed(self) -> MultiDict[str, str]:
        return MultiDict() if self.posted is None else self.posted

    def typed(self, name: str) -> str:
        """What stands in the field of a limit, as it was typed if that was no number."""
        saved = getattr(self.import_, name)
        return self._typed.get(name, "" if saved is None else str(saved))

    @property
    def mode(self) -> str:
        return self._typed.get("mode", self.import_.mode)

    @cached_property
    def unused(self) -> list[str]:
        return mapping.unused(self.import_.header, self.import_.mapping)

    @cached_property
    def fingerprint(self) -> str:
        return mapping.fingerprint(self.import_.header)

    @cached_property
    def problems(self) -> list[str]:
        """Why it can't be imported as it stands."""
        if self.importer is None:
            return []
        return mapping.problems(self.importer, self.import_.mapping, self.import_.mode)

    @cached_property
    def preview(self) -> Preview | None:
        if self.importer is None or self.problems or self.trouble:
            return None
        # It loads what reads files, which costs a process 60 MB: only where one is looked at.
        from app.imports import preview

        return preview.preview(self.importer, self.import_, self._head, ask=True)

    @cached_property
    def trouble(self) -> str | None:
        """Why the file can't be read as it is said to be."""
        try:
            self._head  # noqa: B018  # looked up here for its errors
        except WaybillError as error:
            if error.status >= 500:
                raise
            return error.message
        return None

    @cached_property
    def _head(self) -> bytes:
        return requests.head(self.import_)

    @property
    def _spoken(self) -> Dialect:
        return plain.spoken(self.dialect)

    @property
    def forecast(self) -> Counts | None:
        return Counts.of(self.import_.forecast) if self.import_.forecast else None

    @property
    def examples(self) -> list[dict[str, Any]]:
        """Rows the dry run found to change: {line, key: {column: text}, changes: {column: [old, new]}}."""
        return list((self.import_.forecast or {}).get("examples", ()))

    @property
    def result(self) -> Counts | None:
        return Counts.of(self.import_.result) if self.import_.result else None

    @cached_property
    def undoable_until(self) -> datetime | None:
        applied = self.applied
        if applied is None or self.at_work or (self.undo and self.undo.status == "succeeded"):
            return None
        until = requests.undoable_until(self.import_, applied)
        return until if until and until > self.now else None

    @cached_property
    def corrections(self) -> list[Import]:
        return requests.corrections(self.import_)
