"""A zip archive as a stream: nothing is sought back to, nothing held.

The same content gives the same bytes, so every entry is of the day the format's calendar begins.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from isal import isal_zlib

# Beyond these an entry's sizes and offsets need the zip64 fields.
LIMIT_32 = 0xFFFFFFFF
LIMIT_16 = 0xFFFF
# What a narrow field says when its value is in a wide one.
_WIDE_32, _WIDE_16 = 0xFFFFFFFF, 0xFFFF
LOCAL, _DESCRIPTOR, _CENTRAL = b"PK\x03\x04", b"PK\x07\x08", b"PK\x01\x02"
_DEFLATED = 8
SIZES_FOLLOW, _UTF8 = 0x0008, 0x0800
_DAY_ONE = 0x0021  # 1980-01-01
_PLAIN, _ZIP64 = 20, 45


@dataclass
class _Entry:
    name: bytes
    offset: int
    flags: int
    crc: int = 0
    packed: int = 0
    size: int = 0

    @property
    def large(self) -> bool:
        return max(self.packed, self.size) >= LIMIT_32


class Zip:
    """Each method gives the bytes that come next. `level` is ISA-L's, 0 to 3."""

    def __init__(self, level: int = 1) -> None:
        self._level = level
        self._entries: list[_Entry] = []
        self._offset = 0

    def add(self, name: str, content: bytes) -> bytes:
        """A small entry, at once."""
        entry = self._begin(name, _UTF8)
        packer = self._packer()
        packed = packer.compress(content) + packer.flush()
        entry.crc, entry.packed, entry.size = isal_zlib.crc32(content), len(packed), len(content)
        return self._gone(_local(entry) + packed)

    def open(self, name: str) -> bytes:
        """Begin an entry; what `write` gets next is its content, up to `close`."""
        self._packing = self._packer()
        return self._gone(_local(self._begin(name, _UTF8 | SIZES_FOLLOW)))

    def write(self, content: bytes | memoryview) -> bytes:
        entry = self._entries[-1]
        entry.crc = isal_zlib.crc32(content, entry.crc)
        entry.size += len(content)
        return self._packed(self._packing.compress(content))

    def close(self) -> bytes:
        """End the entry that `open` began."""
        entry = self._entries[-1]
        rest = self._packed(self._packing.flush())
        sizes = "<4sLQQ" if entry.large else "<4sLLL"
        return rest + self._gone(struct.pack(sizes, _DESCRIPTOR, entry.crc, entry.packed, entry.size))

    def finish(self) -> bytes:
        """The directory that ends the archive."""
        directory = b"".join(map(_central, self._entries))
        return directory + _end(len(self._entries), len(directory), self._offset)

    def _begin(self, name: str, flags: int) -> _Entry:
        self._entries.append(_Entry(name.encode(), self._offset, flags))
        return self._entries[-1]

    def _packer(self) -> isal_zlib.Compress:
        return isal_zlib.compressobj(self._level, isal_zlib.DEFLATED, -15)

    def _packed(self, data: bytes) -> bytes:
        self._entries[-1].packed += len(data)
        return self._gone(data)

    def _gone(self, data: bytes) -> bytes:
        self._offset += len(data)
        return data


class Zipped:
    """An archive of one file, with the two methods of a zlib compressor."""

    def __init__(self, name: str) -> None:
        self._zip = Zip()
        self._head = self._zip.open(name)

    def compress(self, block: bytes) -> bytes:
        head, self._head = self._head, b""
        return head + self._zip.write(block)

    def flush(self) -> bytes:
        return self.compress(b"") + self._zip.close() + self._zip.finish()


def _local(entry: _Entry) -> bytes:
    fields = (LOCAL, _PLAIN, entry.flags, _DEFLATED, 0, _DAY_ONE, entry.crc, entry.packed, entry.size)
    return struct.pack("<4s5H3L2H", *fields, len(entry.name), 0) + entry.name


def _central(entry: _Entry) -> bytes:
    values = [entry.size, entry.packed, entry.offset]
    wide = [value for value in values if value >= LIMIT_32]
    size, packed, offset = map(_narrow, values)
    extra = struct.pack(f"<HH{len(wide)}Q", 1, 8 * len(wide), *wide) if wide else b""
    version = _ZIP64 if wide else _PLAIN
    fields = (_CENTRAL, version, version, entry.flags, _DEFLATED, 0, _DAY_ONE, entry.crc, packed, size)
    lengths = (len(entry.name), len(extra), 0, 0, 0, 0, offset)
    return struct.pack("<4s6H3L5H2L", *fields, *lengths) + entry.name + extra


def _end(entries: int, size: int, offset: int) -> bytes:
    count = entries if entries < LIMIT_16 else _WIDE_16
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, _narrow(size), _narrow(offset), 0)
    if max(size, offset) < LIMIT_32 and entries < LIMIT_16:
        return end
    wide = (b"PK\x06\x06", 44, _ZIP64, _ZIP64, 0, 0, entries, entries, size, offset)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, offset + size, 1)
    return struct.pack("<4sQ2H2L4Q", *wide) + locator + end


def _narrow(value: int) -> int:
    return value if value < LIMIT_32 else _WIDE_32
