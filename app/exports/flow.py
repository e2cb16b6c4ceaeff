"""The last stretch of every export: bytes are counted, compressed, hashed and written, in that order."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from isal import isal_zlib

from app import storage
from app.errors import IncompleteArtifact
from app.formats import Counter, Zipped
from app.storage import Stored, Writer


@dataclass(frozen=True)
class Made:
    """A complete file in the storage; `parts` tells what it was joined from, if it was.

    `rows` were read, as the source counted them; `written` were counted in the file's bytes.
    """

    stored: Stored
    rows: int
    written: int
    sha256: str
    parts: Sequence[dict[str, Any]] = ()


@dataclass
class Flow:
    """Counts, compresses, hashes and writes each block, in that order.

    `sha` is anything with `update(block)`.
    """

    writer: Writer
    counter: Counter
    compressor: Any
    sha: Any = field(default_factory=hashlib.sha256)
    size: int = 0

    def write(self, block: bytes) -> None:
        self.counter.feed(block)
        self._put(self.compressor.compress(block) if self.compressor else block)

    def close(self) -> None:
        if self.compressor:
            self._put(self.compressor.flush())

    def _put(self, data: bytes) -> None:
        if data:
            self.sha.update(data)
            self.writer.write(data)
            self.size += len(data)


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


def reconcile(rows: int, flow: Flow) -> None:
    if rows != flow.counter.rows:
        raise IncompleteArtifact(
            f"{rows:,} rows were read, but {flow.counter.rows:,} are in the file. Nothing was published."
        )


def found_whole(stored: Stored, size: int) -> None:
    """Raise IncompleteArtifact unless the storage holds the `size` bytes that were hashed."""
    found = storage.current().stat(stored.key).bytes
    if not found == stored.bytes == size:
        storage.current().delete(stored.key)
        raise IncompleteArtifact(
            f"The storage holds {found:,} bytes where {size:,} were written. Nothing was published."
        )
