"""Where records begin and end, against a reader that goes from character to character and against csv."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.imports.file.dialect import Dialect
from app.imports.file.records import scan

PLAIN = Dialect()
ESCAPED = Dialect(escape="\\")
# Nearly nothing but signs: every way to put quotes in the wrong place comes up.
ugly = st.text(st.sampled_from('",\n\r\\a'), max_size=40).map(str.encode)


def slowly(text: bytes, dialect: Dialect) -> list[tuple[int, int, int, bool, bool]]:
    """(start, end, line, unclosed, returns) of every record, by the rules of app.imports.file.records."""
    found, at = [], 0
    while at < len(text):
        end, opened, returned = _record(text, at, dialect)
        if opened is not None:
            end, _, _ = _record(text, opened, Dialect(quote=None, escape=dialect.escape))
        after = end + 1
        if text[end - 1 : end] == b"\r" and end > at:
            end -= 1
        found.append((at, end, text[:at].count(b"\n"), opened is not None, returned and opened is None))
        at = after
    return found


def _record(text: bytes, at: int, dialect: Dialect) -> tuple[int, int | None, bool]:
    """(where it ends, where a quote opens that is not closed, whether a CR stands alone)."""
    opened, fresh, returned = None, True, False
    while at < len(text):
        sign = text[at : at + 1].decode("latin-1")
        if dialect.escape and sign == dialect.escape:
            at, fresh = at + 2, False
        elif opened is not None and sign == dialect.quote:
            if not dialect.escape and text[at + 1 : at + 2] == b'"':
                at += 2
            elif text[at + 1 : at + 2] in (b"", b",", b"\r", b"\n"):
                at, opened, fresh = at + 1, None, False
            else:
                return 0, opened, returned
        elif opened is not None:
            at += 1
        elif fresh and sign == dialect.quote:
            at, opened = at + 1, at
        elif sign == "\n":
            return at, None, returned
        else:
            returned |= sign == "\r" and text[at + 1 : at + 2] not in (b"\n", b"")
            at, fresh = at + 1, sign in ",\r"
    return len(text), opened, returned


def quickly(text: bytes, dialect: Dialect, *, last: bool = True) -> list[tuple[int, int, int, bool, bool]]:
    found = scan(text, dialect, last=last)
    unclosed, returns = set(found.unclosed.tolist()), set(found.returns.tolist())
    places = zip(found.starts.tolist(), found.ends.tolist(), found.lines.tolist(), strict=True)
    return [(*place, at in unclosed, at in returns - unclosed) for at, place in enumerate(places)]


@given(ugly, st.sampled_from([PLAIN, ESCAPED, Dialect(quote=None)]))
def test_records_are_those_of_a_reader_that_goes_from_character_to_character(text, dialect):
    assert quickly(text, dialect) == slowly(text, dialect)


@given(ugly, st.integers(0, 40), st.sampled_from([PLAIN, ESCAPED]))
def test_a_text_that_goes_on_has_its_first_records(text, cut, dialect):
    """What is found before all bytes are there is found afterwards, too: it is safe to cut there."""
    found = quickly(text[:cut], dialect, last=False)
    whole = quickly(text, dialect)
    assert [place for place, _ in zip(found, whole, strict=False)] == whole[: len(found)]


@given(ugly)
def test_a_text_can_be_cut_at_every_record(text):
    whole = scan(text, PLAIN)
    for after in whole.nexts.tolist():
        parts = [len(scan(text[:after], PLAIN)), len(scan(text[after:], PLAIN))]
        assert sum(parts) == len(whole)


@given(
    st.lists(st.lists(st.text(max_size=5), min_size=1, max_size=3), max_size=6),
    st.sampled_from(["\n", "\r\n"]),
)
def test_records_of_a_writer_are_those_of_csv(rows, end):
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator=end, quoting=csv.QUOTE_ALL).writerows(rows)
    text = buffer.getvalue()
    reader = csv.reader(io.StringIO(text, newline=""))
    assert len(scan(text.encode(), PLAIN)) == len(list(reader))
    found = scan(text.encode(), PLAIN)
    assert len(found.unclosed) == 0


def test_a_forgotten_quote_costs_one_row():
    text = b'1,"5 inch,x\n2,"abc",y\n3,z\n'
    found = scan(text, PLAIN)
    assert found.unclosed.tolist() == [0]
    assert [text[start:end] for start, end in zip(found.starts, found.ends, strict=True)] == [
        b'1,"5 inch,x',
        b'2,"abc",y',
        b"3,z",
    ]


@pytest.mark.parametrize("stray", [b'5" pipe', b'a""b', b'say "hi" to'])
def test_quotes_within_a_text_are_text_however_many_there_are(stray):
    rows = 5000
    text = b"".join(b'%d,%s,"x\ny"\n' % (row, stray) for row in range(rows))
    found = scan(text, PLAIN)
    assert len(found) == rows
    assert found.lines.tolist() == list(range(0, 2 * rows, 2))
    assert len(found.unclosed) == 0
