"""What one may do with imports: begin one, correct how it is read, ask for its steps, pause, resume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Select, null, select, update
from sqlalchemy.sql import func

from app import dispatch, importers, jobs, settings, uploads
from app.errors import BadFile, Conflict, InvalidParams, InvalidRequest, NotFound
from app.extensions import db
from app.importers import Importer
from app.imports import mapping as mappings
from app.imports.file import correction, plain
from app.imports.file.detect import Reason, detect, header
from app.imports.file.dialect import Dialect
from app.imports.rows import Counts
from app.models.imports import APPLY, DRY_RUN, STEPS, UNDO, Import
from app.models.job import FINAL, QUEUED, SUCCEEDED, Job
from app.models.upload import COMPLETE, Upload
from app.models.user import User
from app.paging import PAGE, page

# Beside the dialect's own members an import keeps what was found on the way to them.
WHY, MEMBERS = "why", "members"
TITLES = {DRY_RUN: "Dry run: {}", APPLY: "Import: {}", UNDO: "Undo: {}"}
# The most that a limit or a rate may be.
MOST = 1_000_000_000
# Columns of a file, at most: as many as a spreadsheet may have.
WIDEST = 16_384


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When an import stops by itself, and how fast it goes; None: never, and as fast as can be."""

    reject_limit: int | None = 1000
    reject_percent: int | None = 5
    rate: int | None = None

    def check(self) -> None:
        """Raises InvalidParams."""
        wrong = {
            "reject_limit": self.reject_limit is not None and not 0 <= self.reject_limit <= MOST,
            "reject_percent": self.reject_percent is not None and not 0 <= self.reject_percent <= 100,
            "rate": self.rate is not None and not 1 <= self.rate <= MOST,
        }
        texts = {
            "reject_limit": f"Give a number of rows from 0 to {MOST:,}, or nothing.",
            "reject_percent": "Give per cent from 0 to 100, or nothing.",
            "rate": f"Give rows a second from 1 to {MOST:,}, or nothing.",
        }
        if any(wrong.values()):
            raise InvalidParams({name: texts[name] for name, found in wrong.items() if found})


# --- importers and imports --------------------------------------------------------------------------------


def importer_for(user: User, key: str) -> Importer:
    """The importer, if this person may use it; raises NotFound otherwise."""
    importer = importers.registry().get(key, roles=user.role_names)
    if not importer.allows(user.role_names):
        raise NotFound(f"There is no importer {key!r} for you. Ask an administrator if you need it.")
    return importer


def find(user: User, import_id: UUID) -> Import:
    """The import, if this person may see it; raises NotFound otherwise."""
    found: Import | None = db.session.scalar(visible(user).where(Import.id == import_id))
    if found is None:
        raise NotFound("There is no such import, or it is not yours.")
    return found


def visible(user: User) -> Select[Any]:
    """Imports this person may see: their own, or all for an administrator."""
    return select(Import) if user.is_admin else select(Import).where(Import.owner_id == user.id)


def listing(
    user: User, *, everyone: bool = False, before: str | None = None, limit: int = PAGE
) -> tuple[list[Import], str | None]:
    """A page of imports, newest first, and the cursor of the next page (None: this was the last)."""
    query = visible(user)
    if not everyone:
        query = query.where(Import.owner_id == user.id)
    return page(query, Import, before, limit)


def jobs_of(found: Sequence[Import]) -> dict[UUID, list[Job]]:
    """The jobs of each import in the order they were asked for; one query."""
    query = select(Job).where(Job.import_id.in_([import_.id for import_ in found])).order_by(Job.created_at)
    grouped: dict[UUID, list[Job]] = {import_.id: [] for import_ in found}
    for job in db.session.scalars(query):
        if job.import_id:
            grouped[job.import_id].append(job)
    return grouped


def corrections(import_: Import) -> list[Import]:
    """Imports that brought back this one's refused rows, oldest first."""
    query = select(Import).where(Import.parent_id == import_.id).order_by(Import.created_at)
    return list(db.session.scalars(query))


# --- understanding a file ---------------------------------------------------------------------------------


def create(
    user: User,
    key: str,
    upload: Upload,
    *,
    mode: str | None = None,
    mapping: Mapping[str, object] | None = None,
    dialect: Mapping[str, Any] | None = None,
    limits: Limits | None = None,
    parent: Import | None = None,
) -> Import:
    """Commit an import of a complete upload: how it is read is detected, where its columns go is matched.

    What this person chose for files of the same header goes before that, and what is given before all.
    `mapping` and `dialect` need not be whole. Nothing is written to the target. Raises NotFound, Conflict
    (the upload is not complete), BadFile, InvalidParams.
    """
    import_ = _understood(user, key, upload, mode, mapping, dialect, limits, parent)
    db.session.add(import_)
    db.session.commit()
    return import_


def correct(user: User, import_: Import, upload: Upload) -> Import:
    """A new import of the same kind that brings back refused rows; the first one is its parent."""
    limits = Limits(
        reject_limit=import_.reject_limit, reject_percent=import_.reject_percent, rate=import_.rate
    )
    return create(user, import_.importer, upload, mode=import_.mode, limits=limits, parent=import_)


def revise(
    user: User,
    import_: Import,
    *,
    mode: str | None = None,
    mapping: Mapping[str, object] | None = None,
    dialect: Mapping[str, Any] | None = None,
    limits: Limits | None = None,
) -> Import:
    """Change how it is read or what becomes of it, as long as nothing of it was applied; commits.

    Its limits may be changed later, too, while it is not at work. A changed dialect may change the file's
    header: then the columns are matched anew. A mapping is the whole one. Raises Conflict, InvalidParams,
    BadFile.
    """
    importer = importer_for(user, import_.importer)
    # One that stopped, for its limits perhaps, may go on with others.
    only_limits = limits is not None and dialect is None and mapping is None and mode is None
    _check_open(import_, APPLY if only_limits else None)
    if only_limits:
        _set_limits(import_, limits or Limits())
        db.session.commit()
        return import_
    before = (import_.dialect, import_.mapping, import_.mode)
    if dialect is not None:
        _read_anew(user, importer, import_, dialect)
    if mapping is not None:
        import_.mapping = mappings.check(importer, import_.header, mapping)
    if mode is not None:
        import_.mode = _mode(importer, mode)
    if limits is not None:
        _set_limits(import_, limits)
    if (import_.dialect, import_.mapping, import_.mode) != before:
        # What a dry run found was found with what was before.
        import_.forecast = None
    mappings.remember(user, importer, import_.header, import_.mapping, Dialect.of(import_.dialect))
    db.session.commit()
    return import_


def reasons(import_: Import) -> dict[str, Reason]:
    """Why it is read as it is, by what was detected and not corrected since."""
    return {name: Reason(text, sure) for name, (text, sure) in import_.dialect.get(WHY, {}).items()}


def members(import_: Import) -> list[str]:
    """The sheets of a workbook, or the file in a zip."""
    return list(import_.dialect.get(MEMBERS, ()))


def head(import_: Import) -> bytes:
    """The beginning of its file as plain text; raises BadFile, UploadGone."""
    return plain.head(import_.upload, Dialect.of(import_.dialect))


# --- steps ------------------------------------------------------------------------------------------------


def ask(
    user: User,
    key: str,
    upload: Upload,
    step: str,
    *,
    mode: str | None = None,
    mapping: Mapping[str, object] | None = None,
    dialect: Mapping[str, Any] | None = None,
    limits: Limits | None = None,
    parent: Import | None = None,
    idempotency_key: str | None = None,
) -> Job:
    """`create` and `request` in one: both are committed or none is.

    The same idempotency key with the same request gives the job it gave before; with another one, Conflict.
    """
    given = (key, upload.id, step, mode, mapping, dialect, limits, parent and parent.id)
    asked = jobs.fingerprint("import", *given)
    if idempotency_key and (known := jobs.earlier(user, idempotency_key, asked)):
        return known
    import_ = _understood(user, key, upload, mode, mapping, dialect, limits, parent)
    db.session.add(import_)
    db.session.flush()
    return _request(user, import_, step, idempotency_key, asked)


def request(user: User, import_: Import, step: str, *, idempotency_key: str | None = None) -> Job:
    """Commit a queued job for a step of an import and dispatch it.

    Raises NotFound, InvalidParams (the mapping lacks something), Conflict (the step can't follow what was
    done), UploadGone, TooMany.
    """
    asked = jobs.fingerprint("import", import_.id, step)
    if idempotency_key and (known := jobs.earlier(user, idempotency_key, asked)):
        return known
    return _request(user, import_, step, idempotency_key, asked)


def asked_before(user: User, import_: Import, step: str, idempotency_key: str) -> Job | None:
    """The job that `request` made for this key; None if it is a new one."""
    return jobs.earlier(user, idempotency_key, jobs.fingerprint("import", import_.id, step))


def pause(job: Job) -> Job:
    """Stop at the end of the chunk at work, to be gone on with by `resume`. Raises Conflict."""
    return _mark(job, ~Job.paused_at.is_not(None), func.clock_timestamp(), "Pausing was asked for.", "paused")


def resume(job: Job) -> Job:
    """Go on with a paused job where it stopped. Raises Conflict."""
    # It waits for a worker since now, unless it is to be tried again later.
    since = func.greatest(Job.next_attempt_at, func.clock_timestamp())
    _mark(job, Job.paused_at.is_not(None), None, "Resumed.", "going on", next_attempt_at=since)
    dispatch.send(job.id)
    return job


def cancel(job: Job) -> Job:
    """As for any job; but one that has begun and waits is ended by a worker, which knows what is in."""
    begun = (
        update(Job)
        .where(Job.id == job.id, Job.kind == "import", Job.status == QUEUED, Job.started_at.is_not(None))
        .values(cancel_requested_at=func.clock_timestamp(), paused_at=None, next_attempt_at=None)
        .returning(Job.id)
    )
    if db.session.execute(begun).first() is None:
        return jobs.cancel(job)
    jobs.say(job, "Cancelling was asked for.", QUEUED)
    dispatch.send(job.id)
    return job


def retry(user: User, job: Job) -> Job:
    """Put a failed or cancelled job back on its queue; it goes on behind its last checkpoint.

    Raises NotFound, Conflict (another one of the same import is at work, or came after it), UploadGone.
    """
    if job.kind != "import" or job.import_id is None:
        return jobs.retry(job)
    import_ = db.session.get_one(Import, job.import_id)
    importer_for(user, import_.importer)
    db.session.execute(select(Import.id).where(Import.id == import_.id).with_for_update())
    if job.step == UNDO:
        _check_undo(import_)
    else:
        _check_open(import_, job.step)
        uploads.keep(import_.upload)
        _forget_result(import_, job.step)
    return jobs.retry(job)


def undoable_until(import_: Import, applied: Job) -> datetime | None:
    """Until when what `applied` did can be undone; None: it can't be."""
    if import_.forgotten_at or applied.finished_at is None or _changed_nothing(import_):
        return None
    return applied.finished_at + timedelta(hours=settings.current().retention_hours)


# --- details ----------------------------------------------------------------------------------------------


def _changed_nothing(import_: Import) -> bool:
    """For certain: a worker that died told nothing, though its rows may be in."""
    counts = Counts.of(import_.result or {})
    return import_.result is not None and not counts.inserted + counts.updated


def _understood(
    user: User,
    key: str,
    upload: Upload,
    mode: str | None,
    mapping: Mapping[str, object] | None,
    dialect: Mapping[str, Any] | None,
    limits: Limits | None,
    parent: Import | None,
) -> Import:
    importer = importer_for(user, key)
    if upload.status != COMPLETE:
        raise Conflict(f"The upload of {upload.filename} is {upload.status}, not complete.")
    given = _checked(dialect or {})
    mode = _mode(importer, mode or importer.modes[0])
    import_ = Import(
        owner_id=user.id,
        importer=importer.key,
        title=importer.title,
        upload_id=upload.id,
        parent_id=parent.id if parent else None,
        mode=mode,
    )
    _set_limits(import_, limits or Limits())
    if parent is not None:
        given = _as_before(Dialect.of(parent.dialect)) | given
    usual = {"zone": user.zone}
    # No connection is held while the storage is asked, nor asked for by a look at the upload.
    if upload in db.session:
        db.session.refresh(upload)
        db.session.expunge(upload)
    db.session.rollback()
    around = plain.look(upload)
    begun = plain.start(upload, around, member=given.get("member"))
    found = detect(begun.data, around, whole=begun.whole, names=_names(importer), known=usual | given)
    _check_width(upload, found.header)
    chosen = mappings.remembered(user, importer, found.header)
    before = chosen.mapping if chosen else _of_parent(parent, found.header)
    spoken = found.dialect
    if chosen:
        # The same header in the same dialect: what no header tells was corrected then. But where the cells
        # leave no doubt, this file is another way than that one.
        then = _as_before(Dialect.of(chosen.dialect)).items()
        spoken = replace(spoken, **{name: value for name, value in then if name not in found.told} | given)
    places = mappings.match(importer, found.header, remembered=before)
    if mapping is not None:
        places = _laid_over(importer, found.header, places, mapping)
    why = {name: [reason.text, reason.sure] for name, reason in found.why.items()}
    import_.dialect = spoken.as_json() | {WHY: why, MEMBERS: list(around.members)}
    import_.header, import_.mapping = found.header, places
    return import_


def _laid_over(
    importer: Importer, header: list[str], places: mappings.Places, given: Mapping[str, object]
) -> mappings.Places:
    """What was matched, with what was given over it: a column of the file goes where it was told to."""
    told = mappings.check(importer, header, given)
    taken = {told[name] for name in given if told.get(name) is not None}
    rest = {name: None if place in taken else place for name, place in places.items()}
    return rest | {name: told[name] for name in given}


def _read_anew(user: User, importer: Importer, import_: Import, dialect: Mapping[str, Any]) -> None:
    spoken = Dialect.of(import_.dialect | _checked(dialect))
    if spoken == Dialect.of(import_.dialect):
        return
    names = header(plain.head(import_.upload, spoken).decode("utf-8", "replace"), spoken)
    why = {name: found for name, found in import_.dialect.get(WHY, {}).items() if name not in dialect}
    _check_width(import_.upload, names)
    import_.dialect = spoken.as_json() | {WHY: why, MEMBERS: members(import_)}
    if names != import_.header:
        chosen = mappings.remembered(user, importer, names)
        import_.header = names
        import_.mapping = mappings.match(importer, names, remembered=chosen.mapping if chosen else None)


def _check_width(upload: Upload, header: Sequence[str]) -> None:
    if len(header) > WIDEST:
        raise BadFile(
            f"{upload.filename} has {len(header):,} columns when it is read so; {WIDEST:,} are the most. "
            "Is that the right delimiter?"
        )


def _names(importer: Importer) -> list[str]:
    return [
        name for column in importer.columns for name in (column.name, column.label, *column.aliases) if name
    ]


def _as_before(dialect: Dialect) -> dict[str, Any]:
    """What no other file of the same header tells by itself."""
    names = ("decimal", "dates", "nulls", "zone")
    return {name: getattr(dialect, name) for name in names}


def _of_parent(parent: Import | None, header: list[str]) -> Mapping[str, int | None] | None:
    same = parent is not None and mappings.fingerprint(parent.header) == mappings.fingerprint(header)
    return parent.mapping if parent is not None and same else None


def _checked(dialect: Mapping[str, Any]) -> dict[str, Any]:
    """Members of a dialect that somebody gave; raises InvalidParams."""
    errors = correction.problems(dialect)
    if errors:
        raise InvalidParams({f"dialect.{name}": text for name, text in errors.items()})
    return dict(dialect)


def _mode(importer: Importer, mode: str) -> str:
    if mode not in importer.modes:
        raise InvalidParams(
            {"mode": f"There is no mode {mode[:40]!r} here. Use {', '.join(importer.modes)}."}
        )
    return mode


def _set_limits(import_: Import, limits: Limits) -> None:
    limits.check()
    for name, value in vars(limits).items():
        # SQL's own NULL: where Python says None, the column's default would stand in for it.
        setattr(import_, name, null() if value is None else value)


def _request(user: User, import_: Import, step: str, idempotency_key: str | None, asked: str) -> Job:
    if step not in STEPS:
        raise InvalidRequest(f"There is no step {step[:40]!r}. Use one of {', '.join(STEPS)}.")
    importer = importer_for(user, import_.importer)
    # Whoever else asks for a step of it waits here, and then sees our job.
    db.session.execute(select(Import.id).where(Import.id == import_.id).with_for_update())
    if step == UNDO:
        _check_undo(import_)
    else:
        _check_open(import_, step)
        if found := mappings.problems(importer, import_.mapping, import_.mode):
            raise InvalidParams({"mapping": " ".join(found)})
        uploads.keep(import_.upload)
        _forget_result(import_, step)
        mappings.remember(user, importer, import_.header, import_.mapping, Dialect.of(import_.dialect))
    # The target knows attempts by their numbers: a job that goes on where another one stopped counts on.
    earlier = max((job.attempt for job in _known_jobs(import_) if job.step == step), default=0)
    job = Job(
        attempt=earlier,
        forgiven=earlier,
        kind="import",
        definition=importer.key,
        title=TITLES[step].format(importer.title),
        owner_id=user.id,
        import_id=import_.id,
        step=step,
        params={},
        queue="high",
        time_zone=user.zone,
        idempotency_key=idempotency_key,
        request_sha256=asked,
    )
    return jobs.commit_and_send(user, job)


def _check_open(import_: Import, step: str | None = None) -> None:
    """Nothing of it is at work or applied; to go on with what was stopped, apply it again."""
    if import_.undone is not None:
        raise Conflict("This import was undone. Begin a new one with the same file.")
    for job in _known_jobs(import_):
        if job.status not in FINAL:
            raise Conflict(f"{job.title!r} of this import is {job.status}. Wait for it, or cancel it.")
        if job.step == APPLY and job.status == SUCCEEDED:
            raise Conflict("This import is applied already. Upload the file again to import it once more.")
        if job.step == APPLY and _began(job) and step != APPLY:
            raise Conflict("A part of this import is applied already: go on with it or undo it.")
        if job.step == UNDO and _began(job):
            raise Conflict("This import is being undone. Begin a new one with the same file.")


def _check_undo(import_: Import) -> None:
    applied = [job for job in _known_jobs(import_) if job.step == APPLY and _began(job)]
    if not applied:
        raise Conflict("Nothing of this import was applied, so that there is nothing to undo.")
    for job in _known_jobs(import_):
        if job.status not in FINAL:
            raise Conflict(f"{job.title!r} of this import is {job.status}. Wait for it, or cancel it.")
        if job.step == UNDO and job.status == SUCCEEDED:
            raise Conflict("This import was undone already.")
    until = import_.forgotten_at or undoable_until(import_, applied[-1])
    if until is None:
        raise Conflict("This import has changed nothing, so that there is nothing to undo.")
    if until <= jobs.database_now():
        raise Conflict(
            f"What this import changed could be undone until {until:%Y-%m-%d %H:%M} UTC; what was before is "
            "no longer kept."
        )


def _forget_result(import_: Import, step: str | None) -> None:
    """What an earlier job told is not true any more once another one goes on."""
    if step == APPLY:
        import_.result = None


def _began(job: Job) -> bool:
    """Ever: one that is tried again and waits has not started, but its attempts tell."""
    return bool(job.started_at or job.attempt)


def _known_jobs(import_: Import) -> list[Job]:
    return jobs_of([import_])[import_.id]


def _mark(job: Job, if_: Any, at: Any, text: str, already: str, **more: Any) -> Job:
    changed = db.session.execute(
        update(Job)
        .where(Job.id == job.id, Job.kind == "import", Job.status.not_in(FINAL), if_)
        .values(paused_at=at, **more)
        .returning(Job.id)
    ).first()
    if changed is None:
        db.session.rollback()
        db.session.refresh(job)
        if job.kind != "import":
            raise Conflict("Only imports can be paused. Cancel this one instead.")
        state = job.status if job.final else already
        raise Conflict(f"This import is {state} already.")
    jobs.say(job, text, QUEUED if job.status == QUEUED else None)
    return job
