"""Any uploaded file as plain text: UTF-8 without a mark, lines ending in LF or CRLF, in no container.

Most files are that already, and are read as they are. The others are converted once, into blocks beside the
upload's own, and found again by whoever reads them next.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import re
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain

from app import settings, storage, uploads
from app.errors import BadFile, ObjectMissing
from app.imports.file import packed, workbook
from app.imports.file.dialect import Dialect
from app.models.upload import Upload

MIB = 1024 * 1024
HEAD = MIB
SAMPLE = 64 * 1024
# How much is unpacked to tell a bomb or a damaged file before it is taken.
PROBE = 40 * MIB
# Of the text that comes out of a file: so many times what may be uploaded.
GROWTH = 4

# What files that are no text begin with.
MAGIC = (
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"GIF8", "a picture"),
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "an Arrow file"),
    (b"Obj\x01", "an Avro file"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"BZh", "compressed with bzip2"),
    (b"\xfd7zXZ\0", "compressed with xz"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
    (b"\x7fELF", "a program"),
    (b"MZ\x90", "a program"),
    (b"{\\rtf", "a rich text document"),
)
MARKUP = (b"<!doctype html", b"<html", b"<table", b"<?xml")
OLE2 = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
# Control characters that stand in no text, NUL aside.
CONTROLS = bytes(set(range(1, 9)) | {11} | set(range(14, 27)) | set(range(28, 32)))
# UTF-32's begins with UTF-16's.
MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
UTF8 = ("utf-8", "ascii", "utf-8-sig")
# Codecs of Python's that are no encodings of files.
ODD = {"idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape", "utf-7"}
LONE_CR = re.compile(rb"\r(?!\n)")


@dataclass(frozen=True)
class Around:
    """What is around a file's rows: "none", "gzip" or "zip"; and what they are: "text" or "xlsx"."""

    container: str
    content: str
    # Of a zip its one file; of a workbook its sheets, the first one being read unless told otherwise.
    members: tuple[str, ...] = ()


@dataclass(frozen=True)
class Start:
    """A file's beginning, unpacked but not decoded; of a sheet, its rows as CSV. `whole`: that is all."""

    data: bytes
    whole: bool


@dataclass(frozen=True)
class Plain:
    """The plain text: `size` bytes, spoken as `dialect` says. Any part may be read, any number of times."""

    dialect: Dialect
    size: int
    _open: Callable[[int, int], Iterator[bytes]] = field(repr=False)

    def open(self, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` up to, not including, `end`, in blocks of 256 KiB at most."""
        upper = self.size if end is None else min(end, self.size)
        return self._open(start, upper) if start < upper else iter(())


# --- looking ----------------------------------------------------------------------------------------------


def look(upload: Upload) -> Around:
    """What the file is, from its first and last bytes; raises BadFile for what can't be read."""
    first = b"".join(uploads.open(upload, 0, 4096))
    if first.startswith(b"\x1f\x8b"):
        return Around("gzip", "text")
    if first.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _look_into_zip(upload)
    return Around("none", "text")


def inspect(upload: Upload) -> Around:
    """Look closer, as is done once, before a file is taken: unpack its beginning. Raises BadFile."""
    around = look(upload)
    if around.content == "xlsx":
        opener = _opener(upload)
        workbook.check(upload.filename, opener, packed.entries(upload.filename, opener, upload.bytes), PROBE)
    pieces = _unpacked(upload, around, None)
    sample = _first(pieces, SAMPLE)
    if not sample and len(around.members) < 2:
        raise BadFile(f"There is nothing in {upload.filename}. Look at it where it comes from.")
    if around.content == "text":
        _check_text(upload.filename, sample)
    if around.container != "none":
        _first(pieces, PROBE, keep=False)
    return around


def start(upload: Upload, around: Around, *, member: str | None = None, limit: int = HEAD) -> Start:
    """The first `limit` bytes, to detect the dialect from; `member` is a workbook's sheet. Raises BadFile."""
    data = bytearray()
    for piece in _unpacked(upload, around, member):
        data += piece
        if len(data) > limit:
            return Start(bytes(data[:limit]), False)
    return Start(bytes(data), True)


def head(upload: Upload, dialect: Dialect, limit: int = HEAD) -> bytes:
    """The plain text's first bytes, about `limit` of them, without waiting for the whole; raises BadFile."""
    return _first(_converted(upload, dialect), limit)


def _look_into_zip(upload: Upload) -> Around:
    found = packed.entries(upload.filename, _opener(upload), upload.bytes)
    names = {info.filename for info in found}
    if "[Content_Types].xml" in names:
        _check_workbook(upload.filename, names)
        return Around("none", "xlsx", workbook.sheets(upload.filename, _opener(upload), found))
    if "mimetype" in names and "content.xml" in names:
        raise BadFile(_unfit(upload.filename, "an OpenDocument file"))
    info = packed.the_one(upload.filename, found)
    first = next(packed.unzip(upload.filename, _opener(upload), info), b"")
    if first.startswith((b"PK\x03\x04", b"\x1f\x8b")):
        raise BadFile(
            f"{upload.filename} holds {info.filename}, which is packed itself. Upload that one without the "
            "zip archive around it."
        )
    return Around("zip", "text", (info.filename,))


def _check_workbook(name: str, names: set[str]) -> None:
    if "xl/workbook.bin" in names:
        raise BadFile(_unfit(name, "a binary workbook (.xlsb)"))
    if not any(each.startswith("xl/") for each in names):
        raise BadFile(_unfit(name, "an Office document without a table"))


def _check_text(name: str, sample: bytes) -> None:
    if sample.startswith((b"PK\x03\x04", b"\x1f\x8b")):
        raise BadFile(f"{name} is packed twice. Unpack it once, and upload what comes out.")
    if sample.startswith(OLE2):
        locked = "EncryptedPackage".encode("utf-16-le") in sample
        old = "in an old Office format (.xls), or protected by a password"
        raise BadFile(_unfit(name, "protected by a password" if locked else old))
    if sample.lstrip()[:14].lower().startswith(MARKUP):
        raise BadFile(_unfit(name, "a web page or an XML document"))
    for magic, what in MAGIC:
        if sample.startswith(magic):
            raise BadFile(_unfit(name, what))
    if _wide(sample):
        return
    nuls, odd = sample.count(0), len(sample) - len(sample.translate(None, CONTROLS))
    if nuls * 4 > len(sample):
        raise BadFile(f"{name} is filled with NUL bytes: that is no text. Perhaps its copy broke off.")
    if (nuls + odd) * 20 > len(sample):
        raise BadFile(_unfit(name, "no text"))


def _wide(sample: bytes) -> bool:
    """Whether it may be UTF-16 or UTF-32: marked, or with NULs at every second place or three of four."""
    if sample.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)):
        return len(sample.strip(b"\0")) * 5 > len(sample)
    nuls = [sample[place::4].count(0) * 8 > len(sample[place::4]) * 3 for place in range(4)]
    return sum(nuls) in (2, 3) and len(sample.translate(None, b"\0")) * 5 > len(sample)


def _unfit(name: str, what: str) -> str:
    return (
        f"{name} is {what}: Waybill does not read that. Save it as .xlsx or as CSV (gzip and zip are "
        "fine), and upload that."
    )


# --- converting -------------------------------------------------------------------------------------------


def plain(upload: Upload, dialect: Dialect, *, check: Callable[[], None] = lambda: None) -> Plain:
    """The whole file as plain text, verified if its SHA-256 was declared.

    Files that are plain already are not copied. Others are converted into blocks, once for each way to read
    them; whoever is killed meanwhile begins anew. `check` is called often and may raise. Raises BadFile,
    UploadGone, and the storage's errors.
    """
    uploads.verify(upload, check)
    shift = _as_it_is(upload, dialect)
    if shift is not None:
        return Plain(
            spoken(dialect),
            upload.bytes - shift,
            lambda start, end: uploads.open(upload, start + shift, end + shift),
        )
    folder = f"plain/{fingerprint(dialect)}"
    sizes = _index(upload, folder) or _convert(upload, dialect, folder, check)
    keys = [uploads.key(upload.id, f"{folder}/{name}") for name, _ in sizes]
    counts = [size for _, size in sizes]
    return Plain(spoken(dialect), sum(counts), lambda start, end: uploads.joined(keys, counts, start, end))


def spoken(dialect: Dialect) -> Dialect:
    """How the plain text of a file of this dialect is spoken."""
    plain = replace(dialect, container="none", content="text", member=None, encoding="utf-8")
    if dialect.content == "xlsx":
        return replace(plain, delimiter=",", quote='"', escape=None, decimal=".", dates="iso")
    return plain


def fingerprint(dialect: Dialect) -> str:
    """Of all that the conversion depends on."""
    facts = [dialect.container, dialect.content, dialect.member, _codec(dialect.encoding)]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _as_it_is(upload: Upload, dialect: Dialect) -> int | None:
    """How many bytes of a mark come before the plain text; None: it has to be converted."""
    if (dialect.container, dialect.content) != ("none", "text") or _codec(dialect.encoding) not in UTF8:
        return None
    sample = b"".join(uploads.open(upload, 0, HEAD))
    if _has_lone_cr(sample):
        return None
    return len(codecs.BOM_UTF8) if sample.startswith(codecs.BOM_UTF8) else 0


def _convert(
    upload: Upload, dialect: Dialect, folder: str, check: Callable[[], None]
) -> list[tuple[str, int]]:
    """Store the converted text in blocks, and at last the list of them: it is there only if they all are."""
    limit = settings.current().upload_limit_bytes * GROWTH
    token, blocks = secrets.token_hex(4), []
    for number, block in enumerate(_gathered(_converted(upload, dialect), check)):
        name = f"{number}-{token}"
        _put(upload, f"{folder}/{name}", block)
        blocks.append((name, len(block)))
        if sum(size for _, size in blocks) > limit:
            raise BadFile(
                f"{upload.filename} holds more than {uploads.in_units(limit)} of text. "
                "Split it into several files."
            )
    _put(upload, f"{folder}/index", json.dumps(blocks).encode())
    return blocks


def _index(upload: Upload, folder: str) -> list[tuple[str, int]] | None:
    try:
        raw = b"".join(storage.current().open(uploads.key(upload.id, f"{folder}/index")))
    except ObjectMissing:
        return None
    return [(name, size) for name, size in json.loads(raw)]


def _put(upload: Upload, name: str, data: bytes | bytearray) -> None:
    with storage.current().writer(
        uploads.key(upload.id, name), content_type="text/plain; charset=utf-8", filename=upload.filename
    ) as writer:
        writer.write(data)
        writer.commit()


def _gathered(pieces: Iterator[bytes], check: Callable[[], None]) -> Iterator[bytearray]:
    block = bytearray()
    for piece in pieces:
        check()
        block += piece
        if len(block) >= uploads.BLOCK:
            yield block
            block = bytearray()
    if block:
        yield block


def _converted(upload: Upload, dialect: Dialect) -> Iterator[bytes]:
    """The plain text, made as it is read."""
    around = Around(dialect.container, dialect.content)
    pieces = _unpacked(upload, around, dialect.member)
    if dialect.content == "text":
        pieces = _one_line_end(_decoded(upload.filename, pieces, dialect.encoding))
    return pieces


def _unpacked(upload: Upload, around: Around, member: str | None) -> Iterator[bytes]:
    name, opener = upload.filename, _opener(upload)
    if around.content == "xlsx":
        return workbook.rows(name, opener, upload.bytes, member)
    if around.container == "gzip":
        return packed.gunzip(name, opener(0, None))
    if around.container == "zip":
        found = packed.entries(name, opener, upload.bytes)
        return packed.unzip(name, opener, packed.the_one(name, found))
    return opener(0, None)


def _opener(upload: Upload) -> packed.Opener:
    return lambda start, end: uploads.open(upload, start, end)


def _decoded(name: str, pieces: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    """The same text in UTF-8, without a mark. UTF-8 goes through as it is: rows are refused one by one."""
    first = _first(pieces, 4)
    # The mark is certain; it also says which end comes first.
    mark, marked = next((each for each in MARKS if first.startswith(each[0])), (b"", ""))
    wanted = _codec(encoding)
    if marked and wanted.startswith(marked.removesuffix("-le").removesuffix("-be")):
        first, wanted = first[len(mark) :], marked
    if wanted in UTF8:
        yield first.removeprefix(codecs.BOM_UTF8)
        yield from pieces
        return
    if wanted in ("utf-16", "utf-32"):
        wanted += "-le"  # Python would write a mark, and guess by this machine
    decoder = codecs.getincrementaldecoder(wanted)()
    done, lines = len(mark) if marked == wanted else 0, 1
    for piece in chain([first], pieces, [b""]):
        before = len(decoder.getstate()[0])
        try:
            text = decoder.decode(piece, final=not piece)
        except UnicodeDecodeError as error:
            good = error.object[: error.start].decode(wanted, "replace")
            raise BadFile(
                _undecodable(name, encoding, error, done - before + error.start, lines + good.count("\n"))
            ) from error
        done += len(piece)
        data = text.encode("utf-8", "replace")
        lines += data.count(b"\n")
        yield data


def _undecodable(name: str, encoding: str, error: UnicodeDecodeError, place: int, line: int) -> str:
    bad = error.object[error.start : error.end][:4].hex(" ")
    return (
        f"{name} is not in {encoding} throughout: byte {place + 1:,}, in line {line:,}, is {bad}, which "
        "is no character of it. Choose another encoding."
    )


def _codec(encoding: str) -> str:
    """The canonical name of an encoding; raises BadFile for what is none."""
    try:
        found = codecs.lookup(encoding)
    except LookupError:
        found = None
    if found is None or not getattr(found, "_is_text_encoding", True) or found.name in ODD:
        raise BadFile(f"There is no encoding {encoding!r}. Choose one from the list.")
    return found.name


def _one_line_end(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """LF for each CR that stands alone, if the beginning shows that they end lines. Others stay."""
    first = _first(pieces, HEAD)
    if not _has_lone_cr(first):
        yield first
        yield from pieces
        return
    held = b""
    for piece in chain([first], pieces):
        data = held + piece
        # The next piece may begin with its LF.
        held = b"\r" if data.endswith(b"\r") else b""
        yield LONE_CR.sub(b"\n", data.removesuffix(b"\r"))
    if held:
        yield b"\n"


def _first(pieces: Iterator[bytes], size: int, *, keep: bool = True) -> bytes:
    """The first `size` bytes and what comes in one piece with them, or b"" if they are not to be kept."""
    found, count = bytearray(), 0
    while count < size and (piece := next(pieces, None)) is not None:
        count += len(piece)
        if keep:
            found += piece
        # A web process looks at files, too: its other requests have their turn in between.
        time.sleep(0)
    return bytes(found)


def _has_lone_cr(sample: bytes | bytearray) -> bool:
    """Whether a CR stands alone outside of quotes: then it ends a line."""
    if b"\r" not in sample:
        return False
    *outside, last = bytes(sample).split(b'"')[::2]
    # A CR at the very end may have its LF behind the sample.
    return any(map(LONE_CR.search, outside)) or LONE_CR.search(last.removesuffix(b"\r")) is not None
