"""Objects as files in a folder: `file:///folder`. One machine, or a shared file system."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from stat import S_ISREG
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from app.errors import (
    BadSettings,
    ObjectMissing,
    StorageFull,
    StorageRefused,
    StorageUnavailable,
    WaybillError,
)
from app.storage import BLOCK, Abandoned, Blocks, Stat, Storage, Writer, checked_key, is_key, span

log = logging.getLogger(__name__)

# Files on their way. In the storage's own folder, because a rename is atomic only within one file system;
# no key starts with a dot.
PARTIAL = ".partial"

# Small blocks are gathered up to this many bytes, so that a row is not a system call.
GATHER = 512 * 1024
# Bytes after which the disk is put to work, and how far back those begin that it may have written by then.
AHEAD = 16 * 1024 * 1024
BEHIND = 2 * AHEAD

# What a system says that copies no file by itself, or not from there; one without such a call says nothing.
UNABLE = (errno.ENOSYS, errno.EOPNOTSUPP, errno.EXDEV)

# How often a commit makes its folder again when others prune it at the same moment.
TRIES = 10


def open_storage(url: str, environ: Mapping[str, str]) -> Local:
    parts = urlsplit(url)
    path = Path(unquote(parts.path))
    if parts.netloc or path == Path("/") or "\0" in str(path):
        raise BadSettings(
            f"STORAGE_URL is {url!r}; a folder is written with three slashes: file:///srv/waybill."
        )
    return Local(path)


class Local(Storage):
    def __init__(self, root: Path) -> None:
        self.root = root

    def writer(self, key: str, *, content_type: str, filename: str, durable: bool = True) -> LocalWriter:
        return LocalWriter(self.root, key, filename, durable)

    def stat(self, key: str) -> Stat:
        with reading(key):
            found = self._path(key).stat()
            if not S_ISREG(found.st_mode):
                raise IsADirectoryError
        return _stat(key, found)

    def open(self, key: str, start: int = 0, end: int | None = None) -> Blocks:
        with reading(key):
            file = self._path(key).open("rb", buffering=0)
            file.seek(start)
        length = span(os.fstat(file.fileno()).st_size, start, end)
        return Blocks(key, file, length, lambda error: translated(error, key))

    def delete(self, key: str) -> None:
        path = self._path(key)
        with translating(key):
            path.unlink(missing_ok=True)
        self._prune(path.parent)

    def list(self, prefix: str, older_than: timedelta = timedelta(0)) -> Iterator[Stat]:
        limit = _now() - older_than
        for folder, folders, files in os.walk(self.root / Path(f"{prefix}*").parent, onerror=_unless_missing):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in files:
                path = Path(folder, name)
                key = path.relative_to(self.root).as_posix()
                if not (key.startswith(prefix) and is_key(key)):
                    continue
                # It may be deleted while its folder is read.
                with suppress(ObjectMissing):
                    found = self.stat(key)
                    if found.modified <= limit:
                        yield found

    def abandoned(self, older_than: timedelta) -> Sequence[Abandoned]:
        limit = _now() - older_than
        found = []
        for path in (self.root / PARTIAL).glob("*"):
            with suppress(ObjectMissing), reading(path.name):
                touched = datetime.fromtimestamp(path.stat().st_mtime, UTC)
                if touched <= limit:
                    found.append(Abandoned(path.name, touched))
        return found

    def clean(self, older_than: timedelta) -> int:
        found = self.abandoned(older_than)
        with translating("an unfinished upload"):
            for upload in found:
                (self.root / PARTIAL / upload.name).unlink(missing_ok=True)
        return len(found)

    def presign(self, key: str, *, filename: str, content_type: str, seconds: int) -> None:
        return None

    def check(self) -> None:
        with self.writer("check", content_type="text/plain", filename="check") as writer:
            writer.write(b"Waybill can write here.\n")
            writer.flush()

    def _path(self, key: str) -> Path:
        return self.root / checked_key(key)

    def _prune(self, folder: Path) -> None:
        """Take away folders that became empty; a writer that needs one makes it again."""
        while folder != self.root:
            try:
                folder.rmdir()
            except OSError:
                return
            folder = folder.parent


class LocalWriter(Writer):
    """Writes to a temporary name; the commit makes it durable and renames it."""

    def __init__(self, root: Path, key: str, filename: str, durable: bool) -> None:
        super().__init__(key, filename)
        self._root, self._durable = root, durable
        # Up to here the system was told to begin with bringing the bytes to the disk.
        self._sent = 0
        self._target = root / key
        self._temporary = root / PARTIAL / uuid4().hex
        self._gathered = bytearray()
        with self._translating():
            self._temporary.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self._temporary, "xb", buffering=0, opener=_privately)  # noqa: SIM115

    def _add(self, block: memoryview) -> None:
        if len(block) < GATHER:
            self._gathered += block
            if len(self._gathered) >= GATHER:
                self.flush()
        else:
            self.flush()
            self._write(block)

    def _append(self, key: str, start: int, end: int | None) -> int:
        self.flush()
        with reading(key), (self._root / key).open("rb", buffering=0) as source:
            size = rest = span(os.fstat(source.fileno()).st_size, start, end)
            while rest:
                copied = _copy_range(source.fileno(), self._file.fileno(), rest, start + size - rest)
                if copied == 0:
                    raise OSError(errno.EIO, "the file became shorter while it was copied")
                rest -= copied
        self._send()
        return size

    def expose(self, key: str) -> bool:
        with self._translating():
            try:
                self._place(self._root / checked_key(key), partial(os.link, self._temporary))
            except OSError as error:
                # Not every file system has a second name for a file.
                if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
                    raise
                return False
        return True

    def flush(self) -> None:
        """Hand what was gathered to the operating system."""
        gathered, self._gathered = self._gathered, bytearray()
        self._write(memoryview(gathered))

    def _write(self, rest: memoryview) -> None:
        with self._translating():
            while rest:
                rest = rest[self._file.write(rest) :]
        self._send()

    def _send(self) -> None:
        """Have the disk at work while more bytes come, so that the commit waits for the last ones only.

        What is on the disk by now leaves the memory: a large file takes none from others, and the next bytes
        find room that is at hand.
        """
        end = self._file.tell()
        if self._durable and end - self._sent >= AHEAD and hasattr(os, "posix_fadvise"):
            begin = max(0, self._sent - BEHIND)
            os.posix_fadvise(self._file.fileno(), begin, end - begin, os.POSIX_FADV_DONTNEED)
            self._sent = end

    def _publish(self) -> None:
        self.flush()
        with self._translating():
            if self._durable:
                os.fsync(self._file.fileno())
            self._file.close()
            self._place(self._target, self._temporary.rename)
            if not self._durable:
                return
            # The entry in its folder, and each folder's entry in the one above it.
            for folder in self._target.parents:
                _fsync_folder(folder)
                if folder == self._root:
                    break

    def _place(self, target: Path, put: Callable[[Path], object]) -> None:
        for left in reversed(range(TRIES)):
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                put(target)
                return
            except (FileNotFoundError, FileExistsError):
                # Between any two steps another process may prune the folder, empty as it is.
                if not left:
                    raise

    def _discard(self) -> None:
        self._gathered.clear()
        try:
            self._file.close()
            self._temporary.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s stays until the next sweep: %s", self._temporary, error)

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise translated(error, self.filename, self.bytes) from error


@contextmanager
def reading(key: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise ObjectMissing(f"{key} is not in the storage (any more).") from error
    except OSError as error:
        raise translated(error, key) from error


@contextmanager
def translating(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise translated(error, name) from error


def translated(error: Exception, name: str, written: int = 0) -> WaybillError:
    """What an OSError means to a person; `written` bytes of `name` were taken before it."""
    match error.errno if isinstance(error, OSError) else None:
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            return StorageFull(
                f"The storage has no room left ({_reason(error)}) after {written:,} bytes of {name}. "
                "Nothing was published. Ask the operator to make room, then try again."
            )
        case errno.EACCES | errno.EPERM | errno.EROFS | errno.ENOTDIR | errno.EISDIR:
            return StorageRefused(
                f"The storage folder refuses {name} ({_reason(error)}). "
                "Ask the operator to let Waybill read and write the folder in STORAGE_URL, then try again."
            )
        case _:
            return StorageUnavailable(
                f"The storage folder failed with {name} ({_reason(error)}). Please try again."
            )


def _copy_range(source: int, target: int, size: int, at: int) -> int:
    """Copy up to `size` bytes that begin `at` in the source; returns how many."""
    try:
        # Inside the kernel; on file systems that can, without copying at all.
        return os.copy_file_range(source, target, size, offset_src=at)
    except (AttributeError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in UNABLE:
            raise
    return os.write(target, os.pread(source, min(size, BLOCK), at))


def _unless_missing(error: OSError) -> None:
    """A folder that is gone holds nothing; one that can't be read is no empty one."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise translated(error, "the list of objects") from error


def _reason(error: Exception) -> str:
    """The system's own words, without the path: that is the operator's business and stands in the log."""
    words = error.strerror if isinstance(error, OSError) else None
    return (words or str(error)).lower()


def _stat(key: str, found: os.stat_result) -> Stat:
    modified = datetime.fromtimestamp(found.st_mtime, UTC)
    return Stat(key, found.st_size, f"{found.st_mtime_ns:x}-{found.st_size:x}", modified)


def _now() -> datetime:
    return datetime.now(UTC)


def _privately(path: str, flags: int) -> int:
    """Artifacts are for those whom Waybill lets through, not for other accounts of the machine."""
    return os.open(path, flags | os.O_CLOEXEC, 0o640)


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
