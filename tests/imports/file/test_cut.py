"""Cuts are ends of records, of those that the whole file has, wherever blocks and pieces end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.imports.file import cut as cutting
from app.imports.file.cut import cut, record_ends
from app.imports.file.dialect import Dialect
from app.imports.file.records import scan

PLAIN = Dialect(header=False)
ESCAPED = Dialect(header=False, escape="\\")
NO_QUOTES = Dialect(header=False, quote=None)
DIALECTS = st.sampled_from([PLAIN, ESCAPED, NO_QUOTES, Dialect(header=False, quote="a")])
TEXTS = st.text(alphabet='a,"\n\r\\', max_size=60).map(str.encode)


def slow(text: bytes) -> list[int]:
    """Where records end in a text whose quotes are all in their places, byte by byte."""
    ends, quoted = [], False
    for place, byte in enumerate(text):
        quoted ^= byte == ord('"')
        if byte == ord("\n") and not quoted:
            ends.append(place + 1)
    return ends


def blocks(text: bytes, size: int) -> Iterator[bytes]:
    return (text[start : start + size] for start in range(0, len(text), size))


@pytest.fixture(autouse=True)
def short_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking ahead in small steps, so that short texts meet every case."""
    monkeypatch.setattr(cutting, "MARGIN", 3)


CELLS = st.one_of(
    st.text(alphabet="ab ", max_size=4),
    st.text(alphabet='a,"\n\r', max_size=6).map(lambda cell: '"' + cell.replace('"', '""') + '"'),
)
RECORDS = st.lists(st.tuples(st.lists(CELLS, min_size=1, max_size=4), st.sampled_from(["\n", "\r\n"])))


@settings(max_examples=300, deadline=None)
@given(records=RECORDS, block=st.integers(1, 20), size=st.integers(1, 40))
def test_the_cuts_of_a_file_as_it_should_be(
    records: list[tuple[list[str], str]], block: int, size: int
) -> None:
    text = ("x\n" + "".join(",".join(cells) + end for cells, end in records)).encode()
    pieces = list(cut(blocks(text, block), PLAIN, size=size))
    assert [(piece.start, piece.end) for piece in pieces] == greedy(slow(text), len(text), size)
    for piece in pieces:
        assert piece.first_line == text[: piece.start].count(b"\n") + 1
        assert piece.next_line == text[: piece.end].count(b"\n") + 1


def greedy(ends: list[int], length: int, size: int) -> list[tuple[int, int]]:
    """From each end to the first one at least `size` bytes behind it."""
    found, start = [], 0
    for end in [*ends, length]:
        if end > start and (end - start >= size or end == length):
            found.append((start, end))
            start = end
    return found


@settings(max_examples=500, deadline=None)
@given(text=TEXTS, block=st.integers(1, 20), size=st.integers(1, 30), dialect=DIALECTS)
@example(b'a"b\n"c\nd"\n', 1, 1, PLAIN)
@example(b'"""\n"""\n', 2, 1, PLAIN)
@example(b'"a\n,"b\nc",\n', 1, 1, PLAIN)
@example(b'"\\"\n"\n', 3, 1, ESCAPED)
@example(b"a\\\nb\n", 2, 1, ESCAPED)
def test_the_cuts_of_any_file_are_ends_of_its_records(
    text: bytes, block: int, size: int, dialect: Dialect
) -> None:
    text = b"x" + text  # blank lines at the beginning are passed over
    pieces = list(cut(blocks(text, block), dialect, size=size))
    assert b"".join(text[piece.start : piece.end] for piece in pieces) == text
    whole = scan(text, dialect)
    assert {piece.end for piece in pieces} <= set(whole.nexts.tolist())
    parts = [scan(text[piece.start : piece.end], dialect) for piece in pieces]
    starts = [piece.start + start for piece, part in zip(pieces, parts, strict=True) for start in part.starts]
    assert starts == whole.starts.tolist()


@settings(max_examples=150, deadline=None)
@given(text=TEXTS, size=st.integers(1, 30), dialect=DIALECTS)
def test_going_on_behind_any_piece_gives_the_rest(text: bytes, size: int, dialect: Dialect) -> None:
    text = b"x" + text
    whole = list(cut(blocks(text, 7), dialect, size=size))
    for place, piece in enumerate(whole):
        rest = cut(
            blocks(text[piece.end :], 5),
            dialect,
            start=piece.end,
            first_line=piece.next_line,
            first_number=piece.number + 1,
            size=size,
        )
        assert list(rest) == whole[place + 1 :]


@settings(max_examples=500, deadline=None)
@given(text=TEXTS, dialect=DIALECTS)
def test_what_parity_says_the_scan_says_too(text: bytes, dialect: Dialect) -> None:
    for last in (True, False):
        assert set(record_ends(text, dialect, last=last)) <= {
            *scan(text, dialect, last=last).nexts,
            len(text),
        }


def test_the_header_and_what_comes_before_it_are_no_rows() -> None:
    text = b'Report of "May\n\n\r\nid,"na\nme"\n1,a\n2,b\n'
    for block in range(1, len(text) + 1):
        (piece,) = cut(blocks(text, block), Dialect(skip=1), size=100)
        assert text[piece.start : piece.end] == b"1,a\n2,b\n"
        assert (piece.first_line, piece.next_line) == (6, 8)


@pytest.mark.parametrize("text", [b"", b"\n", b"\r\n\r\n", b"id,name", b"id,name\n", b"\r"])
def test_nothing_but_a_header(text: bytes) -> None:
    assert list(cut(iter([text]), Dialect())) == []


def test_a_quote_that_nobody_closes_costs_its_line_and_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "LONGEST", 1000)
    text = b'id,name\n1,a\n2,"b\n' + b"3,c\n" * 2000
    read = 0

    def endless() -> Iterator[bytes]:
        nonlocal read
        for block in blocks(text, 100):
            read += len(block)
            yield block

    first = next(cut(endless(), Dialect(), size=8))
    assert text[first.start : first.end] == b'1,a\n2,"b\n'
    assert read < 3000


def test_sizes_may_change_on_the_way() -> None:
    sizes = iter([2, 4, 8, 100])
    pieces = cut(iter([b"a\n" * 20]), PLAIN, size=lambda: next(sizes, 1))
    assert [piece.end - piece.start for piece in pieces] == [2, 4, 8, 26]
