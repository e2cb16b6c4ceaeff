"""Receives files in blocks: resumable, checked, bounded in memory.

A block is an object of its own in the storage; the row that tells of it is committed after it. Whatever cuts
the sender off, all blocks up to then stay, and what had come of the next one becomes a shorter block.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy import ColumnElement, Text, and_, cast, exists, func, or_, select, update
from sqlalchemy.dialects.postgresql import ARRAY, array

from app import settings, storage
from app.errors import (
    BadFile,
    Conflict,
    DigestMismatch,
    InvalidParams,
    InvalidRequest,
    NotFound,
    ObjectMissing,
    StorageUnavailable,
    TooMany,
    UploadGone,
    UploadTooLarge,
    WaybillError,
    WrongOffset,
)
from app.extensions import db
from app.models.imports import Import
from app.models.job import FINAL, Job
from app.models.upload import COMPLETE, RECEIVING, REFUSED, Upload
from app.models.user import User

log = logging.getLogger(__name__)

BLOCK = 8 * 1024 * 1024
# Whoever sends in tiny pieces makes as many objects; a file of the usual limit takes 640 full blocks.
BLOCKS_LIMIT = 10_000
# An unfinished upload that got no byte for so long gives way to a new one of its owner's.
STALE = timedelta(hours=1)
# How often `send` goes on after the storage failed.
TRIES = 4


class Stream(Protocol):
    """Where the bytes come from: b"" is their end, an error means that they were cut off."""

    def read(self, size: int, /) -> bytes: ...


# --- receiving --------------------------------------------------------------------------------------------


def begin(
    user: User, filename: str, *, declared_bytes: int | None = None, declared_sha256: str | None = None
) -> Upload:
    """A new upload without a byte. Raises InvalidParams, UploadTooLarge or TooMany."""
    name = _checked_name(filename)
    digest = _checked_sha256(declared_sha256)
    if declared_bytes is not None and declared_bytes < 0:
        raise InvalidParams({"bytes": "A file has no fewer than 0 bytes."})
    _check_size(declared_bytes or 0)
    _check_unfinished(user)
    upload = Upload(
        owner_id=user.id,
        filename=name,
        declared_bytes=declared_bytes,
        declared_sha256=digest,
        expires_at=_expiry(),
    )
    db.session.add(upload)
    db.session.commit()
    return upload


def receive(
    upload: Upload, offset: int, stream: Stream, *, length: int | None = None, digest: str | None = None
) -> Upload:
    """Append the stream's bytes, which begin at `offset`, and commit as they come.

    `length` is how many bytes are to come, if that is known. `digest` is a Content-Digest (RFC 9530): then
    they all count or none. The session's transaction is ended, so that no connection is held meanwhile.

    Raises WrongOffset, UploadTooLarge, InvalidRequest (more bytes than declared, or an unknown digest),
    DigestMismatch, Conflict (it is complete already), UploadGone, the storage's errors, and whatever the
    stream raises. Each leaves an upload that can be gone on with from its `bytes`, unless it is too large:
    then it is refused for good.
    """
    _check_receiving(upload)
    if offset != upload.bytes:
        raise _wrong_offset(upload.bytes)
    intake = _Intake(
        upload.id,
        upload.filename,
        count=len(upload.sizes),
        size=upload.bytes,
        limit=settings.current().upload_limit_bytes,
        declared=upload.declared_bytes,
        expected=_content_digest(digest),
    )
    db.session.rollback()
    try:
        intake.check_room(length or 0)
        intake.take(stream)
    except UploadTooLarge as error:
        _refuse(intake.upload_id, error.message)
        raise
    return _again(intake.upload_id)


def complete(upload: Upload) -> Upload:
    """Say that all bytes are there. They are looked at, but not read through: that is quick.

    Raises WrongOffset when some are missing, BadFile when they are nothing to import (the upload is refused
    then, and its bytes are removed), UploadGone.
    """
    if upload.status == COMPLETE:
        return upload
    _check_receiving(upload)
    if upload.declared_bytes not in (None, upload.bytes):
        raise WrongOffset(
            f"{upload.bytes:,} of {upload.declared_bytes:,} bytes are here. Send those that are missing.",
            upload.bytes,
        )
    try:
        _check_content(upload)
    except BadFile as error:
        _refuse(upload.id, error.message)
        raise
    return _completed(upload)


def _check_content(upload: Upload) -> None:
    # Here, because what it looks at is read by `open` below.
    from app.imports.file import plain

    if not upload.bytes:
        raise BadFile(f"{upload.filename} is empty: it has no bytes at all. Look at it where it comes from.")
    _check_whole(upload, upload.sha256)
    plain.inspect(upload)


def _check_whole(upload: Upload, sha256: str | None) -> None:
    if sha256 and upload.declared_sha256 and sha256 != upload.declared_sha256:
        raise BadFile(
            f"{upload.filename} has changed on its way: its SHA-256 is {sha256} and not "
            f"{upload.declared_sha256}, as was told. Upload it once more."
        )


def _completed(upload: Upload) -> Upload:
    upload_id, count = upload.id, len(upload.sizes)
    db.session.rollback()
    with db.engine.begin() as conn:
        done = conn.execute(
            update(Upload)
            .where(Upload.id == upload_id, _open_at(count))
            .values(status=COMPLETE, expires_at=_expiry())
        ).rowcount
    upload = _again(upload_id)
    if not done and upload.status != COMPLETE:
        _check_receiving(upload)
        raise _wrong_offset(upload.bytes)
    return upload


@dataclass
class _Intake:
    """One sender's bytes on their way into blocks."""

    upload_id: UUID
    filename: str
    # Of the upload as its row says: blocks and bytes that are committed.
    count: int
    size: int
    limit: int
    declared: int | None
    # The digest of this sender's bytes, by its algorithm.
    expected: tuple[str, bytes] | None
    # Blocks that are stored and not yet in the row: names and sizes.
    pending: list[tuple[str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._taken = 0
        # Of the whole, as long as this sender has sent it all.
        self._whole = hashlib.sha256() if self.size == 0 else None
        self._own = hashlib.new(self.expected[0]) if self.expected else None

    def take(self, stream: Stream) -> None:
        try:
            while (cut := self._block(stream)) is None:
                if not self.expected:
                    self._commit()
            if not self.expected:
                # Even if it was cut off: what has come is good.
                self._commit()
            if isinstance(cut, Exception):
                raise cut
            if self.expected:
                self._check_digest(self.expected)
                self._commit()
        finally:
            self._discard()

    def check_room(self, more: int) -> None:
        """Refuse `more` bytes that are over a limit."""
        size = self.size + self._taken + more
        _check_size(size, self.limit)
        if self.declared is not None and size > self.declared:
            raise InvalidRequest(
                f"{self.filename} was to have {self.declared:,} bytes, and more came. "
                "Begin a new upload that tells its right size."
            )

    def _block(self, stream: Stream) -> Exception | bool | None:
        """Store one block; None: more may follow, True: the stream is at its end, an error: it was cut."""
        try:
            piece = stream.read(storage.BLOCK)
        except Exception as error:
            return error
        if not piece:
            return True
        if self.count + len(self.pending) >= BLOCKS_LIMIT:
            raise InvalidRequest(
                f"{self.filename} came in more than {BLOCKS_LIMIT:,} pieces. Upload it anew, in larger ones: "
                "8 MiB are best."
            )
        name = f"{self.count + len(self.pending)}-{secrets.token_hex(4)}"
        with storage.current().writer(
            key(self.upload_id, name), content_type="application/octet-stream", filename=self.filename
        ) as writer:
            cut: Exception | bool | None = None
            while piece:
                self._add(writer, piece)
                if writer.bytes == BLOCK:
                    break
                try:
                    piece = stream.read(min(storage.BLOCK, BLOCK - writer.bytes))
                    cut = None if piece else True
                except Exception as error:
                    piece, cut = b"", error
            writer.commit()
        self.pending.append((name, writer.bytes))
        return cut

    def _add(self, writer: storage.Writer, piece: bytes) -> None:
        self.check_room(len(piece))
        self._taken += len(piece)
        for digest in (self._whole, self._own):
            if digest:
                digest.update(piece)
        writer.write(piece)

    def _commit(self) -> None:
        """Put the stored blocks into the row, if nobody else has put others there."""
        if not self.pending:
            return
        names, sizes = [name for name, _ in self.pending], [size for _, size in self.pending]
        with db.engine.begin() as conn:
            done = conn.execute(
                update(Upload)
                .where(Upload.id == self.upload_id, _open_at(self.count))
                .values(
                    names=Upload.names + cast(array(names), ARRAY(Text)),
                    sizes=func.array_cat(Upload.sizes, sizes),
                    sha256=self._whole.hexdigest() if self._whole else None,
                    expires_at=_expiry(),
                )
            ).rowcount
        if not done:
            upload = _again(self.upload_id)
            _check_receiving(upload)
            raise _wrong_offset(upload.bytes)
        self.count += len(sizes)
        self.size += sum(sizes)
        self._taken -= sum(sizes)
        self.pending.clear()

    def _check_digest(self, expected: tuple[str, bytes]) -> None:
        assert self._own is not None
        if not hmac.compare_digest(self._own.digest(), expected[1]):
            raise DigestMismatch(
                f"The bytes from {self.size:,} on arrived other than they were sent: their Content-Digest "
                "differs. None was kept; send them again."
            )

    def _discard(self) -> None:
        """Take away blocks that never got into the row."""
        for name, _ in self.pending:
            try:
                storage.current().delete(key(self.upload_id, name))
            except WaybillError as error:
                log.warning("A block of upload %s stays until the sweep: %s", self.upload_id, error)
        self.pending.clear()


def _open_at(count: int) -> ColumnElement[bool]:
    """It still takes bytes, and has just so many blocks: they only ever become more."""
    return and_(
        Upload.status == RECEIVING, Upload.removed_at.is_(None), func.cardinality(Upload.sizes) == count
    )


def _check_receiving(upload: Upload) -> None:
    if upload.status == REFUSED:
        raise BadFile(upload.refusal or f"{upload.filename} was refused.")
    _check_there(upload)
    if upload.status != RECEIVING:
        raise Conflict(f"The upload of {upload.filename} is complete; it takes no more bytes.")


def _check_there(upload: Upload) -> None:
    if upload.removed_at is not None:
        raise UploadGone(f"{upload.filename} is no longer here: it was removed. Upload it once more.")


def _wrong_offset(right: int) -> WrongOffset:
    return WrongOffset(f"{right:,} bytes of this upload are here: go on from offset {right}.", right)


def _check_size(size: int, limit: int | None = None) -> None:
    limit = settings.current().upload_limit_bytes if limit is None else limit
    if size > limit:
        raise UploadTooLarge(
            f"The file is larger than {in_units(limit)}, the most that may be uploaded here. Compress it "
            "with gzip or zip, split it into several, or ask the operator to raise UPLOAD_LIMIT_BYTES."
        )


def _check_unfinished(user: User) -> None:
    limit = settings.current().user_upload_limit
    unfinished = and_(Upload.owner_id == user.id, Upload.status == RECEIVING, Upload.removed_at.is_(None))
    found = db.session.scalars(select(Upload).where(unfinished).order_by(Upload.expires_at)).all()
    if len(found) < limit:
        return
    stale = func.clock_timestamp() + _retention() - STALE
    oldest = db.session.scalar(
        select(Upload).where(unfinished, Upload.expires_at < stale).order_by(Upload.expires_at).limit(1)
    )
    if oldest is None:
        raise TooMany(
            f"You have {len(found)} unfinished uploads; {limit} are allowed at a time. "
            "Finish one, remove one, or wait an hour: one that gets no more bytes gives way.",
            retry_after=60,
        )
    remove(oldest)


def _checked_name(filename: str) -> str:
    """The last part of what may be a path, as some browsers and programs send."""
    name = filename.replace("\\", "/").rpartition("/")[2]
    name = "".join(char for char in name if char.isprintable()).strip()
    if not name or len(name) > 255:
        raise InvalidParams({"filename": "Give the file a name of 1 to 255 characters."})
    return name


def _checked_sha256(sha256: str | None) -> str | None:
    if sha256 is None:
        return None
    with suppress(ValueError):
        if len(bytes.fromhex(sha256)) == 32:
            return sha256.lower()
    raise InvalidParams({"sha256": "A SHA-256 is 64 hexadecimal digits."})


def _content_digest(header: str | None) -> tuple[str, bytes] | None:
    """The strongest digest of a Content-Digest header, by hashlib's name: `sha-256=:base64:, …`."""
    if header is None:
        return None
    members = {
        name.strip().lower(): value.strip()
        for name, _, value in (member.partition("=") for member in header.split(","))
    }
    for name, algorithm in (("sha-512", "sha512"), ("sha-256", "sha256")):
        value = members.get(name, "")
        with suppress(binascii.Error, ValueError):
            digest = base64.b64decode(value[1:-1], validate=True)
            if value[:1] == value[-1:] == ":" and len(digest) == hashlib.new(algorithm).digest_size:
                return algorithm, digest
    raise InvalidRequest(
        "The Content-Digest is not understood. Write it like: sha-256=:<the digest in base64>:"
    )


# --- looking and reading ----------------------------------------------------------------------------------


def find(user: User, upload_id: UUID) -> Upload:
    """The upload, if it is this person's or they are an administrator; raises NotFound otherwise."""
    query = select(Upload).where(Upload.id == upload_id)
    found: Upload | None = db.session.scalar(
        query if user.is_admin else query.where(Upload.owner_id == user.id)
    )
    if found is None:
        raise NotFound("There is no such upload, or it is not yours.")
    return found


def open(upload: Upload, start: int = 0, end: int | None = None) -> Iterator[bytes]:
    """The bytes from `start` up to, not including, `end`, in blocks of 256 KiB at most.

    Raises UploadGone at once, and ObjectMissing or StorageUnavailable on the way.
    """
    _check_there(upload)
    keys = [key(upload.id, name) for name in upload.names]
    return joined(keys, list(upload.sizes), start, end)


def joined(
    keys: Sequence[str], sizes: Sequence[int], start: int = 0, end: int | None = None
) -> Iterator[bytes]:
    """The bytes from `start` up to `end` of what objects of these sizes are together."""
    place = 0
    for each, size in zip(keys, sizes, strict=True):
        lower = max(0, start - place)
        upper = size if end is None else min(size, end - place)
        if lower < upper:
            yield from _block(each, lower, upper)
        place += size


def _block(name: str, start: int, end: int) -> Iterator[bytes]:
    try:
        with storage.current().open(name, start, end) as blocks:
            yield from blocks
    except ObjectMissing as error:
        raise ObjectMissing(
            f"A part of the uploaded file is missing from the storage ({name}), so the file can't be read "
            "to its end. Upload it once more, and tell the operator."
        ) from error


def verify(upload: Upload, check: Callable[[], None] = lambda: None) -> None:
    """Read it through and compare its SHA-256 with the declared one, unless that was done or none was.

    `check` is called often and may raise. Raises BadFile, and what `open` raises.
    """
    if not upload.declared_sha256 or upload.sha256:
        return
    digest = hashlib.sha256()
    for block in open(upload):
        check()
        digest.update(block)
    _check_whole(upload, digest.hexdigest())
    with db.engine.begin() as conn:
        conn.execute(update(Upload).where(Upload.id == upload.id).values(sha256=digest.hexdigest()))


def key(upload_id: UUID, name: str) -> str:
    """Where a block is in the storage; and by longer names, what was made of the upload."""
    return f"{prefix(upload_id)}{name}"


def prefix(upload_id: UUID) -> str:
    return f"uploads/{upload_id}/"


# --- keeping and removing ---------------------------------------------------------------------------------


def keep(upload: Upload) -> None:
    """Let its bytes live for another retention, in the session's transaction; raises UploadGone.

    Whoever asks for a job that needs them calls it before the commit: then the sweep can't come between.
    """
    kept = db.session.execute(
        update(Upload)
        .where(Upload.id == upload.id, Upload.removed_at.is_(None))
        .values(expires_at=func.greatest(Upload.expires_at, _expiry()))
        .returning(Upload.id)
    ).first()
    if kept is None:
        db.session.refresh(upload)
        _check_there(upload)


def remove(upload: Upload) -> None:
    """Take its bytes away; what is known of it stays. Raises Conflict while a job needs them."""
    if not _take_away(upload.id, needed_by(~Job.status.in_(FINAL))):
        db.session.refresh(upload)
        if upload.removed_at is None:
            raise Conflict(
                f"{upload.filename} is being imported. Cancel that job first, or wait until it is over."
            )


def expire(upload_id: UUID) -> bool:
    """Take an expired upload's bytes away, unless it was given more time meanwhile."""
    return _take_away(upload_id, ~expired())


def expired() -> ColumnElement[bool]:
    """Whose time is over: also that of its imports, counted from their making and the end of their jobs."""
    now = func.clock_timestamp()
    living = or_(~Job.status.in_(FINAL), Job.finished_at > now - _retention())
    young = exists().where(Import.upload_id == Upload.id, Import.created_at > now - _retention())
    return and_(Upload.removed_at.is_(None), Upload.expires_at <= now, ~needed_by(living), ~young)


def needed_by(jobs: ColumnElement[bool]) -> ColumnElement[bool]:
    """An import of it has such a job."""
    return exists().where(Import.upload_id == Upload.id, Job.import_id == Import.id, jobs)


def _take_away(upload_id: UUID, unless: ColumnElement[bool]) -> bool:
    """First the row says so, then the objects go; those that stay behind are orphans, and swept."""
    db.session.commit()
    with db.engine.begin() as conn:
        done = conn.execute(
            update(Upload)
            .where(Upload.id == upload_id, Upload.removed_at.is_(None), ~unless)
            .values(removed_at=func.clock_timestamp())
        ).rowcount
    if done:
        _delete_objects(upload_id)
    return bool(done)


def _refuse(upload_id: UUID, message: str) -> None:
    db.session.rollback()
    with db.engine.begin() as conn:
        conn.execute(
            update(Upload)
            .where(Upload.id == upload_id, Upload.status == RECEIVING)
            .values(
                status=REFUSED,
                refusal=message,
                removed_at=func.coalesce(Upload.removed_at, func.clock_timestamp()),
            )
        )
    try:
        _delete_objects(upload_id)
    except WaybillError as error:
        log.warning("The bytes of the refused upload %s stay until the sweep: %s", upload_id, error)


def _delete_objects(upload_id: UUID) -> None:
    place = storage.current()
    for found in list(place.list(prefix(upload_id))):
        place.delete(found.key)


def _retention() -> timedelta:
    return timedelta(hours=settings.current().retention_hours)


def _expiry() -> Any:
    return func.clock_timestamp() + _retention()


def _again(upload_id: UUID) -> Upload:
    return db.session.get_one(Upload, upload_id, populate_existing=True)


# --- a file of this machine -------------------------------------------------------------------------------


def send(user: User, path: Path, progress: Callable[[int], None] = lambda _: None) -> Upload:
    """Upload a local file; `progress` is told how many bytes are taken. Raises what the above raise.

    A storage that fails is tried again from where it stood, some times.
    """
    try:
        with path.open("rb") as file:
            upload = begin(user, path.name, declared_bytes=path.stat().st_size)
            for left in reversed(range(TRIES)):
                file.seek(upload.bytes)
                try:
                    upload = receive(upload, upload.bytes, _Told(file, progress))
                    break
                except StorageUnavailable:
                    upload = _again(upload.id)
                    if not left:
                        raise
    except OSError as error:
        raise InvalidRequest(f"{path} can't be read: {error.strerror or error}.") from error
    return complete(upload)


@dataclass
class _Told:
    """A file that tells how far it was read."""

    file: Any
    progress: Callable[[int], None]

    def read(self, size: int, /) -> bytes:
        piece: bytes = self.file.read(size)
        self.progress(self.file.tell())
        return piece


def in_units(size: int) -> str:
    """A number of bytes for people: "5 GiB", "300 bytes"."""
    for power, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if size >= 1024**power:
            return f"{size / 1024**power:.1f}".removesuffix(".0") + f" {unit}"
    return f"{size:,} bytes"
