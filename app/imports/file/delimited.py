"""How a text sets its cells apart: delimiter, quote, escape, and lines before the first record. Pure.

Every way to speak is tried on the first records; the best one gives rows of one width and cells that look
like single values. Measured over the files of tests/imports/file/corpus.py against csv.Sniffer, DuckDB,
polars and CleverCSV; docs/formats.md has the figures.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

from app.imports.file.dialect import Dialect

if TYPE_CHECKING:
    import _csv

# The first one wins where nothing tells them apart.
DELIMITERS = (",", ";", "\t", "|", "^", "~", "\x1f", "\x01", ":")
# Characters, records and cells that are looked at.
LOOKED_AT, RECORDS, CELLS = 256 * 1024, 300, 10_000
# Lines before the header, at most.
LONGEST_PREAMBLE = 20
# Rows of one width, at least so many of all, make a delimiter believable.
EVEN = 0.6
# A cell may be as long as the whole head.
csv.field_size_limit(max(csv.field_size_limit(), 4 * 1024 * 1024))

NUMBER = re.compile(r"[-+(]?[^\W\d_]{0,3} ?[$€£¥]?-?\d[\d.,' \u00a0\u202f]*(e[-+]?\d+)?\)?\s?[%€$£¥]?", re.I)
# A line before all others by which spreadsheets are told the delimiter.
TOLD = re.compile(r"\"?sep=([;,\t|^~:])\"?(?:\r\n?|\n)", re.I)
LINE_END = re.compile("\r\n?")
# Cells that are more than one value, if they are not in quotes: a delimiter of another kind between words.
SEVERAL = re.compile(r"[;\t|^~\x1f\x01]|,(?=\S)")


@dataclass(frozen=True)
class Spoken:
    """What was found; `sure` is False where another way would do as well, or where there is one column."""

    delimiter: str
    quote: str | None = '"'
    escape: str | None = None
    skip: int = 0
    columns: int = 1
    sure: bool = True


@dataclass(frozen=True)
class _Try:
    score: float
    spoken: Spoken


def detect(text: str, *, whole: bool = True, **fixed: str | None) -> Spoken:
    """How `text` is spoken; `whole` says whether it is all of it. `fixed` are members that are known."""
    if told := TOLD.match(text):
        rest = detect(text[told.end() :], whole=whole, **{"delimiter": told[1]} | fixed)
        return replace(rest, skip=rest.skip + 1)
    text, cut = text[:LOOKED_AT], not whole or len(text) > LOOKED_AT
    tries = [_try(text, cut, *way) for way in _ways(text, fixed)]
    best = max(tries, key=lambda tried: tried.score)
    if best.spoken.columns < 2 and "delimiter" not in fixed:
        return _one_column(text, best.spoken)
    rivals = [t.score for t in tries if t.spoken.delimiter != best.spoken.delimiter and t.spoken.columns > 1]
    sure = best.score > 1.2 * max(rivals, default=0)
    found = best.spoken
    return Spoken(found.delimiter, found.quote, found.escape, found.skip, found.columns, sure)


def records(text: str, dialect: Dialect) -> Iterator[list[str]]:
    """The records of a text in UTF-8's characters, from its first line; blank lines are left out."""
    lines = io.StringIO(text, newline="")
    for _ in range(dialect.skip):
        lines.readline()
    return _read(lines, dialect.delimiter, dialect.quote, dialect.escape)


def _ways(text: str, fixed: dict[str, str | None]) -> Iterator[tuple[str, str | None, str | None]]:
    delimiters = [fixed["delimiter"]] if "delimiter" in fixed else [d for d in DELIMITERS if d in text]
    quotes: Sequence[str | None] = [fixed["quote"]] if "quote" in fixed else list(_quotes(text))
    for delimiter in delimiters or [","]:
        for quote in quotes:
            escapes = ["\\", None] if quote and f"\\{quote}" in text else [None]
            for escape in [fixed["escape"]] if "escape" in fixed else escapes:
                yield delimiter or ",", quote, escape


def _quotes(text: str) -> Iterator[str | None]:
    """Double quotes, single ones where cells stand in them, and none where a double quote stands alone."""
    yield '"'
    if re.search(r"(?:^|[,;\t|])'[^'\n]*'(?=[,;\t|\r\n]|\Z)", text, re.M):
        yield "'"
    if '"' in text:
        yield None


def _try(text: str, cut: bool, delimiter: str, quote: str | None, escape: str | None) -> _Try:
    lines = io.StringIO(text, newline="")
    found: list[list[str]] = list(islice(_read(lines, delimiter, quote, escape), RECORDS + 1))
    if len(found) > RECORDS or (cut and len(found) > 1):
        found.pop()  # it may be half a record
    before = _preamble(found)
    rows = found[before:]
    widths = Counter(map(len, rows))
    width, even = widths.most_common(1)[0] if widths else (0, 0)
    if width < 2 or even < EVEN * len(rows):
        return _Try(0.0, Spoken(delimiter, quote, escape))
    share = even / len(rows)
    cells = list(islice((cell for row in rows for cell in row), CELLS))
    single = sum(map(_single, cells)) / len(cells)
    # Many columns are a better sign than two; a colon is mostly a time's, and no quote is the last resort.
    score = share**2 * single * (width - 1) / width
    score *= (0.4 if delimiter == ":" else 1) * (0.95 if quote is None else 1)
    score *= 1 if cut or quote is None or _well_quoted(text, delimiter, quote, escape) else 0.6
    skip = _lines_of(text, before, delimiter, quote, escape)
    return _Try(score, Spoken(delimiter, quote, escape, skip, width))


def _well_quoted(text: str, delimiter: str, quote: str, escape: str | None) -> bool:
    """Whether most quotes at a cell's start have their partner at the cell's end.

    One that has none spoils its own row; were quotes taken for text for its sake, all others were spoilt. At
    the text's very end it tells that the file was cut off.
    """
    # Here, because it loads NumPy, which a process that looks at no file need not carry.
    from app.imports.file.records import scan

    data = LINE_END.sub("\n", text).encode(errors="replace")
    found = scan(data, Dialect(delimiter=delimiter, quote=quote, escape=escape))
    opening = re.compile(rf"(?:^|{re.escape(delimiter)}){re.escape(quote)}".encode())
    begun = sum(
        opening.search(data[start:end]) is not None
        for start, end in zip(found.starts.tolist(), found.ends.tolist(), strict=True)
    )
    wrong = len(found.unclosed) - (len(found) - 1 in found.unclosed and not data.endswith(b"\n"))
    return wrong * 2 <= begun


def _single(cell: str) -> float:
    """How much it looks like one value."""
    if not cell or NUMBER.fullmatch(cell):
        return 1.0
    if cell[0] in "\"'" or cell[-1] == '"':
        return 0.1
    if SEVERAL.search(cell):
        return 0.4
    return 0.9


def _preamble(found: list[list[str]]) -> int:
    """How many records come before the first one that is as wide as most are."""
    if len(found) < 3:
        return 0
    widths = [len(row) for row in found]
    usual = Counter(widths[len(widths) // 3 :]).most_common(1)[0][0]
    # A spreadsheet pads its title to the table's width.
    first = next((n for n, row in enumerate(found) if len(row) == usual <= 2 * _filled(row)), 0)
    # Otherwise they are ragged rows.
    narrow = all(_filled(row) < usual for row in found[:first])
    return first if usual > 1 and first <= LONGEST_PREAMBLE and narrow else 0


def _filled(row: list[str]) -> int:
    return sum(bool(cell.strip()) for cell in row)


def _lines_of(text: str, count: int, delimiter: str, quote: str | None, escape: str | None) -> int:
    """The physical lines that `count` records and the blank lines among them take."""
    if not count:
        return 0
    lines = io.StringIO(text, newline="")
    reader = _reader(lines, delimiter, quote, escape)
    seen = taken = 0
    for row in reader:
        if row:
            if seen == count:
                return taken
            seen += 1
        taken = reader.line_num
    return taken


def _one_column(text: str, found: Spoken) -> Spoken:
    """Nothing sets cells apart: the delimiter is one that the text does not have."""
    free = next((mark for mark in (",", ";", "\t", "|", "\x1f", "\x01") if mark not in text), "\x1f")
    return Spoken(free, found.quote if free == "," or '"' in text else '"', None, 0, 1, sure=free == ",")


def _read(lines: io.StringIO, delimiter: str, quote: str | None, escape: str | None) -> Iterator[list[str]]:
    try:
        yield from (row for row in _reader(lines, delimiter, quote, escape) if row)
    except csv.Error:
        # A cell longer than all that is looked at: what came before it has to do.
        return


def _reader(lines: io.StringIO, delimiter: str, quote: str | None, escape: str | None) -> _csv.Reader:
    clean = (line.replace("\0", "\ufffd") for line in lines)
    if quote is None:
        return csv.reader(clean, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    return csv.reader(
        clean,
        delimiter=delimiter,
        quotechar=quote,
        escapechar=escape,
        doublequote=escape is None,
    )
