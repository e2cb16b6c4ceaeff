"""What an import is asked to do, read from the database once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from app.errors import NotAllowed
from app.extensions import db
from app.importers import Importer, registry
from app.imports.file import plain
from app.imports.file.check import Checker
from app.imports.file.dialect import Dialect
from app.imports.file.plain import Plain
from app.models.imports import Import
from app.models.job import Job
from app.models.upload import Upload


@dataclass(frozen=True)
class Order:
    """One step of an import; holds no connection."""

    import_id: UUID
    step: str
    importer: Importer
    upload: Upload
    dialect: Dialect
    header: tuple[str, ...]
    mapping: dict[str, int | None]
    mode: str
    reject_limit: int | None
    reject_percent: int | None
    rate: int | None

    @classmethod
    def of(cls, job_id: UUID) -> Order:
        """Raises NotAllowed, or NotFound where the importer is gone."""
        job = db.session.get_one(Job, job_id)
        import_ = db.session.get_one(Import, job.import_id)
        importer = registry().get(job.definition)
        if not (job.owner.active and job.owner.may(importer.roles)):
            # What earlier attempts wrote is in.
            changed = "Nothing more was" if job.attempt > 1 else "Nothing was"
            raise NotAllowed(f"{job.owner.email} may no longer use {importer.title!r}. {changed} changed.")
        order = cls(
            *(import_.id, job.step or "", importer, import_.upload, Dialect.of(import_.dialect)),
            *(tuple(import_.header), import_.mapping, import_.mode),
            *(import_.reject_limit, import_.reject_percent, import_.rate),
        )
        db.session.expunge_all()
        db.session.remove()
        return order

    @property
    def text_dialect(self) -> Dialect:
        """How the plain text is spoken, whatever the file was."""
        return plain.spoken(self.dialect)

    def plain(self, check: Callable[[], None]) -> Plain:
        """The file as plain text; raises BadFile, UploadGone."""
        return plain.plain(self.upload, self.dialect, check=check)

    def checker(self, text: Plain) -> Checker:
        return Checker(self.importer, text.dialect, self.mapping, len(self.header))
