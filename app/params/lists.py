"""A list of values from a file: text, CSV or an Excel workbook.

Of several columns one is taken: the one that was named, else the one whose header is the param's name or
label, else the first. Files are read as a stream; only the values themselves are held.
"""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from app.params.kinds import KINDS, LIST_ITEMS, List, Refused

if TYPE_CHECKING:
    from app.params import Param

CHILD = Path(__file__).with_name("_sheet_child.py")
# The largest file, in bytes.
FILE_LIMIT = 32 * 1024 * 1024
# How much of a file tells what it is and which sign stands between its columns.
SAMPLE = 64 * 1024
# Values read at a time.
CHUNK = 10_000
# How many wrong lines are told.
TOLD = 3
# How long a workbook may take to be unpacked and read, in seconds.
PATIENCE = 60

_SWALLOWED = "A quote that ends in line {:,} begins lines before."
EMPTY = "The file holds no values."

_DELIMITERS = ("\t", ";", ",", "|")
_WORKBOOK, _OLD_WORKBOOK = b"PK\x03\x04", b"\xd0\xcf\x11\xe0"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_QUOTED = re.compile(r'"[^"]*"')
_NEITHER = re.compile(r"[\W_]+")

# A row's number in the file, and its cells.
Row = tuple[int, Sequence[str]]


def read(file: IO[bytes], param: Param, column: str | None = None, also: Collection[str] = ()) -> list[Any]:
    """The param's values, in order, doubled ones left out; raises Refused with the lines that are wrong.

    `file` can seek. `column` is a header that was chosen; `also` are headers that mean the param, too.
    """
    size = file.seek(0, io.SEEK_END)
    if size > FILE_LIMIT:
        raise Refused(f"The file has {size:,} bytes; at most {FILE_LIMIT:,} are read. Split the list.")
    file.seek(0)
    beginning = file.read(SAMPLE)
    file.seek(0)
    reader = _unpacked if beginning.startswith(_WORKBOOK) else _lines
    with reader(file, beginning) as rows:
        return _values(rows, param, column, {param.name, param.label, *also})


@contextmanager
def _lines(file: IO[bytes], beginning: bytes) -> Iterator[Iterator[Row]]:
    """Rows of text or CSV."""
    if beginning.startswith(_OLD_WORKBOOK):
        raise Refused("This is a workbook of the old kind (.xls). Save it as .xlsx or as CSV.")
    encoding = "utf-16" if beginning.startswith(_UTF16) else "utf-8-sig"
    if encoding != "utf-16" and b"\0" in beginning:
        raise Refused("This is no text: send a text file, a CSV file or an Excel workbook (.xlsx).")
    text = io.TextIOWrapper(cast(Any, file), encoding, newline="")
    reader = csv.reader(text, delimiter=_delimiter(beginning.decode(encoding, errors="replace")))
    try:
        yield ((reader.line_num, cells) for cells in reader if cells)
    except UnicodeDecodeError:
        raise Refused(_wrong_letters(file, encoding)) from None
    except csv.Error as error:
        raise Refused(f"Line {reader.line_num:,} can't be read: {error}.") from None
    finally:
        text.detach()


def _delimiter(sample: str) -> str:
    """The sign that stands in every line; a comma if none does."""
    lines = [_QUOTED.sub("", line) for line in sample.splitlines()[:20] if line.strip()]
    found = {sign: min((line.count(sign) for line in lines), default=0) for sign in _DELIMITERS}
    return max(_DELIMITERS, key=lambda sign: (found[sign] > 0, found[sign], sign == ","))


def _wrong_letters(file: IO[bytes], encoding: str) -> str:
    if encoding == "utf-16":
        return "The file begins like UTF-16, but is none. Save it as UTF-8."
    file.seek(0)
    for number, line in enumerate(file, 1):
        try:
            line.decode()
        except UnicodeDecodeError:
            return f"Line {number:,} is not UTF-8. Save the file as UTF-8; Excel calls that “CSV UTF-8”."
    return "The file is not UTF-8. Save it as UTF-8; Excel calls that “CSV UTF-8”."


@contextmanager
def _unpacked(file: IO[bytes], _: bytes) -> Iterator[Iterator[Row]]:
    """Rows of a workbook's first sheet, unpacked in a process of its own with little memory.

    A small file may say that it has billions of cells.
    """
    with tempfile.TemporaryFile() as packed, tempfile.TemporaryFile() as cells:
        while block := file.read(SAMPLE):
            packed.write(block)
        packed.seek(0)
        command = [sys.executable, str(CHILD)]
        try:
            child = subprocess.run(
                command, stdin=packed, stdout=cells, stderr=subprocess.PIPE, timeout=PATIENCE
            )
        except subprocess.TimeoutExpired:
            raise Refused(f"The workbook takes more than {PATIENCE} s to read. Save it as CSV.") from None
        if child.returncode:
            raise Refused(_told(child.stderr))
        cells.seek(0)
        yield map(json.loads, cells)


def _told(errors: bytes) -> str:
    """The child's last words, if they are for people."""
    last = errors.decode(errors="replace").strip().rpartition("\n")[2]
    told = last.removeprefix("refused: ")
    return told if told != last else "The workbook is too large when it is unpacked. Save it as CSV."


def _values(rows: Iterator[Row], param: Param, column: str | None, names: set[str]) -> list[Any]:
    first = list(islice(rows, 2))
    if not first:
        raise Refused(EMPTY)
    place, header = _column(first, param, column, names)
    if len(first) == 1 and not header:
        number, cells = first[0]
        return _typed(param, ((number, cell) for cell in cells))
    rows = chain(first[header:], rows)
    return _typed(param, ((number, cells[place]) for number, cells in rows if len(cells) > place))


def _column(first: Sequence[Row], param: Param, column: str | None, names: set[str]) -> tuple[int, bool]:
    """Which column is meant, and whether the first row is a header."""
    headers = [_plain(cell) for cell in first[0][1]]
    if column is not None:
        if _plain(column) in headers:
            return headers.index(_plain(column)), True
        shown = ", ".join(cell.strip()[:40] for cell in first[0][1][:20])
        raise Refused(f"There is no column {column[:80]!r} in the first line. There is: {shown}.")
    wanted = set(map(_plain, names))
    for place, header in enumerate(headers):
        if any(header in _of_one(name) or name in _of_one(header) for name in wanted):
            return place, True
    return 0, param.items == "int" and len(first) > 1 and not _is_number(first[0][1][0])


def _typed(param: Param, cells: Iterable[tuple[int, str]]) -> list[Any]:
    kind = cast(List, KINDS["list"])
    found: dict[Any, None] = {}
    wrong: list[str] = []
    left = iter(cells)
    while chunk := list(islice(left, CHUNK)):
        # A web process serves others in the same thread: they take their turn here.
        time.sleep(0)
        texts = [text for _, text in chunk]
        try:
            found.update(dict.fromkeys(kind.items(param, texts)))
        except Refused:
            wrong += _wrong_lines(param, chunk)
        wrong += [_SWALLOWED.format(number) for number, text in chunk if "\n" in text.strip()]
        if len(found) > LIST_ITEMS:
            raise Refused(f"The file holds more than {LIST_ITEMS:,} values. Split the list.")
    if wrong:
        more = f" {len(wrong) - TOLD:,} more are wrong." if len(wrong) > TOLD else ""
        raise Refused(" ".join(wrong[:TOLD]) + more)
    if not found:
        raise Refused(EMPTY)
    return list(found)


def _wrong_lines(param: Param, chunk: Sequence[tuple[int, str]]) -> Iterator[str]:
    kind = KINDS[param.items]
    for number, text in chunk:
        try:
            kind.parse(param, text, None)
        except Refused as refused:
            yield f"Line {number:,}: {refused}"


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\s*[+-]?[0-9]+\s*|\s*", text) is not None


def _of_one(plural: str) -> tuple[str, ...]:
    """The word itself, and what it may be of one thing."""
    return plural, plural.removesuffix("s"), plural.removesuffix("es")


def _plain(header: str) -> str:
    """ "E-mail " and "email" are the same header."""
    return _NEITHER.sub("", header).casefold()
