"""What imports keep in their targets, dropped once it is of no more use."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import ColumnElement, and_, exists, func, or_, select, update

from app import settings
from app.extensions import db
from app.importers import registry
from app.models.imports import APPLY, Import
from app.models.job import FINAL, SUCCEEDED, Job
from app.models.upload import Upload
from app.sweep.batches import first

if TYPE_CHECKING:
    from app.imports.table.connection import Target

# How long a target may take to answer, in seconds, and how long a lock in it is waited for, in milliseconds.
PATIENCE, LOCK_PATIENCE = 5, 1000


def spent_ledgers() -> int:
    """Drop what imports keep in their targets that can neither be undone nor gone on with any more.

    A target that does not answer is asked again in the next pass; the others do not wait for it, nor one
    import for another. The first failure is raised at the end.
    """
    count, failures = 0, list[Exception]()
    keys = defaultdict[tuple[str, ...], list[str]](list)
    for key in first(select(Import.importer).where(_spent()).distinct()):
        keys[_sources(key)].append(key)
    for sources, importers in keys.items():
        # At random: some that can't be dropped, however many, do not stand in the way of the others for ever.
        spent = select(Import.id).where(_spent(), Import.importer.in_(importers)).order_by(func.random())
        try:
            count += _drop_all(sources, first(spent), failures)
        except Exception as error:
            failures.append(error)
    if failures:
        raise failures[0]
    return count


def _spent() -> ColumnElement[bool]:
    """Begun, and over for as long as it could be undone; and not to be gone on with.

    One that stopped in the middle goes on behind its checkpoint, for as long as its upload is there.
    """
    its = Job.import_id == Import.id
    over = func.clock_timestamp() - timedelta(hours=settings.current().retention_hours)
    ended = or_(
        Import.undone.is_not(None),
        exists().where(its, Job.step == APPLY, Job.status == SUCCEEDED),
        exists().where(Upload.id == Import.upload_id, Upload.removed_at.is_not(None)),
    )
    return and_(
        Import.forgotten_at.is_(None),
        exists().where(its, Job.step == APPLY, Job.attempt > 0),
        ~exists().where(its, or_(Job.status.not_in(FINAL), Job.finished_at > over)),
        ended,
    )


def _sources(key: str) -> tuple[str, ...]:
    """Where an importer writes; of one that is gone nobody knows it, so that all have to be asked."""
    from app.imports.table.connection import SCHEMES

    known = registry()
    if key in known:
        return (known.get(key).source,)
    urls = settings.current().target_urls
    return tuple(name for name, url in sorted(urls.items()) if url.partition("://")[0] in SCHEMES)


def _drop_all(sources: Sequence[str], import_ids: Sequence[UUID], failures: list[Exception]) -> int:
    """Raises TargetDown; what stands in the way of single imports is added to `failures`."""
    # Here, because it loads what a process that drops nothing need not carry.
    from app.imports.table.connection import TargetDown, connect

    count = 0
    with ExitStack() as opened:
        targets = [opened.enter_context(connect(name, "waybill sweep", PATIENCE)) for name in sources]
        for target in targets:
            opened.enter_context(target.patience(LOCK_PATIENCE))
        for import_id in import_ids:
            try:
                count += _drop(targets, import_id)
            except TargetDown:
                raise
            except Exception as error:
                failures.append(error)
    return count


def _drop(targets: Sequence[Target], import_id: UUID) -> bool:
    from app.imports.table import journal

    if not _still_spent(import_id):
        return False
    for target in targets:
        journal.forget(target, import_id)
    with db.engine.begin() as conn:
        done = conn.execute(
            update(Import)
            .where(Import.id == import_id, Import.forgotten_at.is_(None))
            .values(forgotten_at=func.clock_timestamp())
        ).rowcount
    return bool(done)


def _still_spent(import_id: UUID) -> bool:
    """Asked with its row locked, as by those who ask for a step: whoever comes later is too late."""
    locked = select(Import.id).where(Import.id == import_id).with_for_update(skip_locked=True)
    with db.engine.begin() as conn:
        if conn.execute(locked).first() is None:
            return False
        return conn.execute(select(Import.id).where(Import.id == import_id, _spent())).first() is not None
