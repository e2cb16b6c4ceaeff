"""What is packed: gzip and zip, unpacked as a stream. Bombs are told by how much comes out of how little."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable, Iterator
from typing import IO, cast
from zipfile import ZipInfo

from isal import igzip_lib
from isal.isal_zlib import crc32

from app.errors import BadFile

# Opens the packed file's bytes from a place up to another one.
Opener = Callable[[int, int | None], Iterator[bytes]]

# What is unpacked at once, and what is fed for it: small, so that what comes out of it is told exactly.
OUT, IN = 256 * 1024, 32 * 1024
# Tables shrink to a tenth, rarely to a hundredth. Whatever unpacks to more than this many times its size,
# in any stretch of so many bytes, is no table.
RATIO = 200
STRETCH = 32 * 1024 * 1024
# The list of a zip's contents: at most so many bytes and names.
LIST_LIMIT, NAMES_LIMIT = 1024 * 1024, 5000
# What systems add to a zip by themselves.
ADDED = ("__MACOSX/", ".DS_Store", "Thumbs.db", "desktop.ini")
STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
ENCRYPTED = 0x1
# What a broken or forged zip makes the zipfile module raise.
BROKEN = (
    zipfile.BadZipFile,
    struct.error,
    NotImplementedError,
    OverflowError,
    ValueError,
    EOFError,
    KeyError,
)


def gunzip(name: str, blocks: Iterator[bytes]) -> Iterator[bytes]:
    """What is in a gzip file, several members one after another included; raises BadFile."""
    unpacked, fresh = _Inflater(name, igzip_lib.DECOMP_GZIP), True
    for block in _small(blocks):
        rest = block
        while rest:
            if unpacked.eof:
                # Zeros at the end only fill up a tape or a disk.
                rest = rest.lstrip(b"\0")
                if not rest:
                    break
                unpacked.again()
            yield from unpacked.feed(rest)
            rest, fresh = unpacked.unused, False
    if fresh or not unpacked.eof:
        raise BadFile(f"{name} ends in the middle of its gzip data. Is it complete? Upload it once more.")


def entries(name: str, opener: Opener, size: int) -> list[ZipInfo]:
    """The list of a zip's contents, without folders and what systems add; raises BadFile."""
    window = Window(opener, size, name)
    try:
        with zipfile.ZipFile(cast(IO[bytes], window)) as archive:
            found = archive.infolist()
    except BROKEN as error:
        raise BadFile(
            f"{name} begins like a zip archive, but its list of contents is missing or damaged. "
            "Is it complete? Upload it once more."
        ) from error
    finally:
        window.close()
    if len(found) > NAMES_LIMIT:
        raise BadFile(f"{name} holds {len(found):,} files; Waybill takes a zip archive of one.")
    return [info for info in found if not (info.is_dir() or _added(info.filename))]


def the_one(name: str, found: list[ZipInfo]) -> ZipInfo:
    """The only file of a zip; raises BadFile when there is another number, or it can't be taken."""
    if not found:
        raise BadFile(f"{name} is a zip archive without a file in it.")
    if len(found) > 1:
        names = ", ".join(info.filename for info in found[:3]) + (" …" if len(found) > 3 else "")
        raise BadFile(
            f"{name} holds {len(found):,} files ({names}). Waybill takes one table at a time: "
            "upload each of them by itself."
        )
    [info] = found
    parts = info.filename.replace("\\", "/").split("/")
    if ".." in parts or parts[0] in ("", ".") or ":" in parts[0]:
        raise BadFile(
            f"{name} holds a file whose name leads elsewhere ({info.filename!r}). "
            "Pack it again, under a plain name."
        )
    check_readable(name, info)
    return info


def check_readable(name: str, info: ZipInfo) -> None:
    if info.flag_bits & ENCRYPTED:
        raise BadFile(f"{name} is protected by a password. Pack it again without one.")
    if info.compress_type not in (STORED, DEFLATED):
        raise BadFile(
            f"{name} is packed in a way that Waybill does not read (method {info.compress_type}). "
            "Pack it again as a plain zip, or with gzip."
        )


def unzip(name: str, opener: Opener, info: ZipInfo) -> Iterator[bytes]:
    """One file of a zip, its checksum checked at the end; raises BadFile."""
    check_readable(name, info)
    start = _data_start(name, opener, info)
    blocks = _small(opener(start, start + info.compress_size))
    crc, size = 0, 0
    for piece in blocks if info.compress_type == STORED else _inflated(name, blocks):
        crc, size = crc32(piece, crc), size + len(piece)
        yield piece
    if crc != info.CRC or size != info.file_size:
        raise BadFile(f"{name} is damaged: {info.filename} does not match its checksum. Upload it once more.")


def _inflated(name: str, blocks: Iterator[bytes]) -> Iterator[bytes]:
    inflater = _Inflater(name, igzip_lib.DECOMP_DEFLATE)
    for block in blocks:
        if inflater.eof:
            return
        yield from inflater.feed(block)
    if not inflater.eof:
        raise BadFile(f"{name} ends in the middle of its data. Is it complete? Upload it once more.")


def _data_start(name: str, opener: Opener, info: ZipInfo) -> int:
    """Behind the entry's own header, which has its name once more."""
    header = b"".join(opener(info.header_offset, info.header_offset + 30))
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise BadFile(f"{name} is damaged: {info.filename} is not where its list says. Upload it once more.")
    names, extra = struct.unpack("<HH", header[26:30])
    return int(info.header_offset + 30 + names + extra)


def _added(name: str) -> bool:
    last = name.rpartition("/")[2]
    return name.startswith(ADDED) or last in ADDED or last.startswith("._")


def _small(blocks: Iterator[bytes]) -> Iterator[bytes]:
    for block in blocks:
        for start in range(0, len(block), IN):
            yield block[start : start + IN]


class _Inflater:
    """Unpacks in pieces of bounded size, and watches how much comes out of how little."""

    def __init__(self, name: str, flag: int) -> None:
        self._name, self._flag = name, flag
        self._given = self._made = 0
        self.again()

    def again(self) -> None:
        """Begin with the next member."""
        self._unpacker = igzip_lib.IgzipDecompressor(flag=self._flag)

    @property
    def eof(self) -> bool:
        return bool(self._unpacker.eof)

    @property
    def unused(self) -> bytes:
        """What came behind the end."""
        return bytes(self._unpacker.unused_data) if self.eof else b""

    def feed(self, block: bytes) -> Iterator[bytes]:
        self._given += len(block)
        while True:
            try:
                piece = self._unpacker.decompress(block, OUT)
            except igzip_lib.IsalError as error:  # type: ignore[misc]  # its stubs call it an object
                raise BadFile(
                    f"{self._name} is damaged: its data can't be unpacked ({error}). Upload it once more."
                ) from error
            block = b""
            if piece:
                self._watch(len(piece))
                yield piece
            if self.eof or (self._unpacker.needs_input and not piece):
                return

    def _watch(self, made: int) -> None:
        self._made += made
        if self._made < STRETCH:
            return
        if self._made > self._given * RATIO:
            raise BadFile(
                f"{self._name} unpacks to more than {RATIO} times its size. That is no table but a file made "
                "to fill up whoever unpacks it. If it is not: upload it unpacked."
            )
        self._given = self._made = 0


class Window:
    """A file-like view for the zipfile module, which reads the end and the list; no large reads."""

    def __init__(self, opener: Opener, size: int, name: str) -> None:
        self._opener, self._size, self._name = opener, size, name
        self._at = 0
        self._blocks: Iterator[bytes] = iter(())
        self._block, self._start = b"", -1

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        at = offset + (0, self._at, self._size)[whence]
        if at < 0:
            raise OSError("before the beginning")
        self._at = at
        return at

    def read(self, size: int = -1) -> bytes:
        size = max(0, self._size - self._at) if size < 0 else size
        if size > LIST_LIMIT:
            raise BadFile(
                f"{self._name} holds a list of contents that is far too long for a zip archive of one."
            )
        found = bytearray()
        while len(found) < size and (piece := self._piece(size - len(found))):
            found += piece
            self._at += len(piece)
        return bytes(found)

    def close(self) -> None:
        self._blocks = iter(())

    def _piece(self, size: int) -> bytes:
        inside = self._at - self._start
        if not 0 <= inside < len(self._block):
            if inside != len(self._block):
                self._blocks = self._opener(self._at, min(self._size, self._at + LIST_LIMIT))
            self._block, self._start = next(self._blocks, b""), self._at
            inside = 0
        return self._block[inside : inside + size]
