"""The last stretch of every export: bytes are counted, compressed, hashed and written, in that order."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from isal import isal_zlib

from app.errors import IncompleteArtifact
from app.formats import Counter, Zipped
from app.storage import Storage, Stored, Writer


@dataclass
class Flow:
    """Counts, compresses, hashes and writes each block, in that order."""

    writer: Writer
    counter: Counter
    compressor: Any
    size: int = 0
    sha: Any = field(default_factory=hashlib.sha256)

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


def found_whole(storage: Storage, stored: Stored, flow: Flow) -> None:
    found = storage.stat(stored.key).bytes
    if not found == stored.bytes == flow.size:
        storage.delete(stored.key)
        raise IncompleteArtifact(
            f"The storage holds {found:,} bytes where {flow.size:,} were written. Nothing was published."
        )
