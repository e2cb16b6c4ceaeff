"""The last stretch of every export: bytes are counted, compressed, hashed and written, in that order."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from isal import isal_zlib

from app import storage
from app.errors import IncompleteArtifact
from app.formats import Counter, Zipped
from app.storage import Stored, Writer


@dataclass(frozen=True)
class Made:
    """A complete file in the storage.

    `rows` were read, as the source counted them; `written` were counted in the file's bytes. `parts` tells
    what it was joined from, `members` which files are in it, `lookup` how many of the values asked for were
    not found.
    """

    stored: Stored
    rows: int
    written: int
    sha256: str
    parts: Sequence[dict[str, Any]] = ()
    members: Sequence[dict[str, Any]] = ()
    lookup: dict[str, Any] | None = None


class Out:
    """Hashes and writes each block. `sha` is anything with `update(block)`."""

    def __init__(self, writer: Writer, sha: Any = None) -> None:
        self._writer = writer
        self.sha: Any = sha or hashlib.sha256()
        self.size = 0

    def put(self, data: bytes) -> None:
        if data:
            self.sha.update(data)
            self._writer.write(data)
            self.size += len(data)


class Flow(Out):
    """Counts, compresses, hashes and writes each block, in that order."""

    def __init__(self, writer: Writer, counter: Counter, compressor: Any, sha: Any = None) -> None:
        super().__init__(writer, sha)
        self.counter = counter
        self._compressor = compressor

    def write(self, block: bytes) -> None:
        self.counter.feed(block)
        self.put(self._compressor.compress(block) if self._compressor else block)

    def close(self) -> None:
        if self._compressor:
            self.put(self._compressor.flush())


def compressor(compression: str, inner: str) -> Any:
    """Has `compress(block)` and `flush()`; None for no compression. `inner` is the file's name in a zip."""
    match compression:
        case "gzip":
            # ISA-L at level 1: as small as zlib's default, at a seventh of its time.
            # 31: a gzip header and trailer.
            return isal_zlib.compressobj(1, isal_zlib.DEFLATED, 31)
        case "zip":
            return Zipped(inner)
        case _:
            return None


def reconcile(rows: int, written: int, name: str = "the file") -> None:
    """Raise IncompleteArtifact unless as many rows were written as were read."""
    if rows != written:
        raise IncompleteArtifact(
            f"{rows:,} rows were read, but {written:,} are in {name}. Nothing was published."
        )


def found_whole(stored: Stored, size: int) -> None:
    """Raise IncompleteArtifact unless the storage holds the `size` bytes that were hashed."""
    found = storage.current().stat(stored.key).bytes
    if not found == stored.bytes == size:
        storage.current().delete(stored.key)
        raise IncompleteArtifact(
            f"The storage holds {found:,} bytes where {size:,} were written. Nothing was published."
        )
