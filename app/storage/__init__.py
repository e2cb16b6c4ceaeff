"""Where artifacts and uploads live. One file a kind of storage; `open_storage` picks it by the URL's scheme.

A new kind is one new module here, named like its scheme, with `open_storage(url, environ)` in it.
Objects are written once, under a key nobody else uses (see `artifact_key`), and become visible whole or
not at all. Vendors' errors end here: callers see the Storage... and ObjectMissing errors of `app.errors`.
"""

from __future__ import annotations

import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib import import_module
from importlib.util import find_spec
from types import TracebackType
from typing import Protocol, Self
from urllib.parse import quote, urlsplit
from uuid import UUID

from flask import current_app

from app.errors import BadSettings, StorageUnavailable

Block = bytes | bytearray | memoryview

# What one step of a stream holds, in bytes: large enough to be cheap, small enough to be short.
BLOCK = 256 * 1024

KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")


def open_storage(url: str, environ: Mapping[str, str] | None = None) -> Storage:
    """The storage of `file:///folder` or `s3://bucket/prefix`.

    `environ` holds the `AWS_*` variables; without it, or where it says nothing, boto3 looks for them itself.
    Nothing is contacted yet. Raises BadSettings when the URL names no storage.
    """
    scheme = urlsplit(url).scheme
    # Imported only when used: boto3 alone costs every process 30 MB.
    module = f"{__name__}.{'local' if scheme == 'file' else scheme}"
    if not scheme.isalnum() or find_spec(module) is None:
        raise BadSettings(f"STORAGE_URL is {url!r}; use file:///folder or s3://bucket/prefix.")
    opened: Storage = import_module(module).open_storage(url, environ or {})
    return opened


def current() -> Storage:
    """The storage of the app at work."""
    storage: Storage = current_app.extensions["waybill.storage"]
    return storage


def artifact_key(job_id: UUID, attempt: int, extension: str) -> str:
    """A key of this attempt alone: a late commit of a fenced-off worker can't overwrite a published object.

    `extension` comes without its first dot: "csv", "csv.gz".
    """
    return f"artifacts/{job_id}/{attempt}.{extension}"


def disposition(filename: str) -> str:
    """Content-Disposition (RFC 6266): offer a download under `filename`, whatever is in that name."""
    name = _safe_name(filename)
    folded = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    # Quotes, backslashes and percent signs are read differently by each browser, even when escaped.
    plain = re.sub(r'["\\%]', "_", folded).strip(" .") or "download"
    header = f'attachment; filename="{plain}"'
    return header if plain == name else f"{header}; filename*=UTF-8''{quote(name, safe='!#$&+^`|')}"


def _safe_name(filename: str) -> str:
    """One path segment without control characters: no header is split, no folder is left."""
    printable = "".join(char if char.isprintable() and char not in "/\\" else "_" for char in filename)
    return printable.strip(" .")[:200] or "download"


@dataclass(frozen=True)
class Stored:
    """What a commit published."""

    key: str
    bytes: int


@dataclass(frozen=True)
class Stat:
    """What is known of an object without reading it. `etag` changes whenever the bytes do."""

    key: str
    bytes: int
    etag: str
    modified: datetime


@dataclass(frozen=True)
class Abandoned:
    """An upload that was begun and neither committed nor aborted: its writer was killed."""

    name: str
    touched: datetime


class Storage(ABC):
    """A place for objects. A key is a path of letters, digits and `._-`; no name in it starts with a dot."""

    @abstractmethod
    def writer(self, key: str, *, content_type: str, filename: str, durable: bool = True) -> Writer:
        """A writer for a new object; nothing is visible under `key` until its commit.

        Not `durable`: a power cut may spoil it, so whoever reads it checks it; a killed process can't.
        """

    @abstractmethod
    def stat(self, key: str) -> Stat:
        """Size, etag and time of an object; raises ObjectMissing."""

    @abstractmethod
    def open(self, key: str, start: int = 0, end: int | None = None) -> Blocks:
        """The bytes from `start` up to, not including, `end`. An object that is missing is so at once."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Take an object away; one that isn't there is gone already."""

    @abstractmethod
    def list(self, prefix: str, older_than: timedelta = timedelta(0)) -> Iterator[Stat]:
        """The objects whose keys start with `prefix`, last changed at least `older_than` ago, in no order."""

    @abstractmethod
    def abandoned(self, older_than: timedelta) -> Sequence[Abandoned]:
        """Uploads without an end that nobody has written to for `older_than`."""

    @abstractmethod
    def clean(self, older_than: timedelta) -> int:
        """Take the abandoned uploads away; returns how many there were."""

    @abstractmethod
    def presign(self, key: str, *, filename: str, content_type: str, seconds: int) -> str | None:
        """A URL at which the storage itself hands out the object; None: it can't, stream it instead."""

    @abstractmethod
    def check(self) -> None:
        """Write something small; raises what stands in the way."""


class Writer(ABC):
    """Takes an object's bytes. Leaving the `with` without a commit aborts."""

    def __init__(self, key: str, filename: str) -> None:
        self.key = checked_key(key)
        self.filename = filename
        self.bytes = 0
        self._settled = False

    def write(self, block: Block) -> None:
        """Add a block. It is copied or stored before this returns: the caller may use it again."""
        if self._settled:
            raise ValueError(f"The writer of {self.key} was committed or aborted; it takes no more bytes.")
        view = memoryview(block).cast("B")
        self._add(view)
        self.bytes += len(view)

    def append(self, key: str, start: int = 0, end: int | None = None) -> None:
        """Add a stored object's bytes from `start` up to `end`, copied by the storage itself where it can.

        Raises ObjectMissing.
        """
        if self._settled:
            raise ValueError(f"The writer of {self.key} was committed or aborted; it takes no more bytes.")
        self.bytes += self._append(checked_key(key), start, end)

    def expose(self, key: str) -> bool:
        """Let what is written be read under `key`, too: at once, and after a kill or an abort.

        False: this storage can't. What is appended after that need not be kept elsewhere; a power cut may
        spoil it.
        """
        return False

    def commit(self) -> Stored:
        """Make the object visible, whole and durable."""
        if self._settled:
            raise ValueError(f"The writer of {self.key} was committed or aborted before.")
        self._publish()
        self._settled = True
        return Stored(self.key, self.bytes)

    def abort(self) -> None:
        """Throw away what was written; after a commit or an abort this does nothing."""
        if not self._settled:
            self._settled = True
            self._discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    @abstractmethod
    def _add(self, block: memoryview) -> None: ...

    @abstractmethod
    def _append(self, key: str, start: int, end: int | None) -> int:
        """The number of bytes added."""

    @abstractmethod
    def _publish(self) -> None: ...

    @abstractmethod
    def _discard(self) -> None:
        """Must not raise: it also runs while another error is on its way, and `clean` comes after it."""


class Readable(Protocol):
    """What Blocks reads from."""

    def read(self, size: int, /) -> bytes: ...

    def close(self) -> object: ...


class Blocks(Iterator[bytes]):
    """Blocks of one object, `length` bytes in all. Closed at the end, by `close` or by leaving the `with`.

    `translate` turns the storage's own errors into ours.
    """

    def __init__(
        self, key: str, source: Readable, length: int, translate: Callable[[Exception], Exception]
    ) -> None:
        self.key = key
        self.length = length
        self._source = source
        self._left = length
        self._translate = translate

    def __next__(self) -> bytes:
        if not self._left:
            self.close()
            raise StopIteration
        block = self._read()
        if not block:
            self.close()
            raise StorageUnavailable(
                f"The storage ended {self.key} {self._left:,} bytes too early. Please try again."
            )
        self._left -= len(block)
        return block

    def _read(self) -> bytes:
        try:
            return self._source.read(min(BLOCK, self._left))
        except Exception as error:
            self.close()
            raise self._translate(error) from error

    def close(self) -> None:
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def is_key(name: str) -> bool:
    """False for a name that could lead out of the storage, or that we never gave."""
    return len(name) <= 300 and KEY.fullmatch(name) is not None


def checked_key(key: str) -> str:
    if not is_key(key):
        raise ValueError(f"{key!r} is no storage key: use letters, digits and ._- between slashes.")
    return key


def span(size: int, start: int, end: int | None) -> int:
    """How many bytes of an object of `size` lie from `start` up to `end`."""
    return max(0, min(size, size if end is None else end) - start)
