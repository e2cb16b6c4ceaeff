"""Lists of values from files of every kind, and from files that are none."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import pytest

from app.formats import formats
from app.params import Param, lists
from app.params.kinds import LIST_ITEMS, Refused

IDS = Param("ids", "list", items="int")
EMAILS = Param("emails", "list", label="Email addresses")
SHEET = b'<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>'


def read(content: bytes | str, param: Param = EMAILS, **options: Any) -> list[Any]:
    return lists.read(io.BytesIO(content.encode() if isinstance(content, str) else content), param, **options)


def refusal(content: bytes | str, param: Param = EMAILS, **options: Any) -> str:
    with pytest.raises(Refused) as caught:
        read(content, param, **options)
    return str(caught.value)


def workbook(columns: list[str], *rows: tuple[object, ...]) -> bytes:
    return b"".join(formats()["xlsx"].writing("standard").rows(columns, rows))


def forged(sheet: bytes, **sizes: int) -> bytes:
    """A workbook with this as the XML of its sheet."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(workbook(["a"], (1,)))) as good, zipfile.ZipFile(made, "w", 8) as bad:
        for entry in good.infolist():
            bad.writestr(entry.filename, sheet if "sheet1" in entry.filename else good.read(entry))
    return made.getvalue()


@pytest.mark.parametrize(
    ("content", "values"),
    [
        ("a@x\nb@x\n", ["a@x", "b@x"]),
        ("a@x\r\nb@x\r\n\r\n  \r\nc@x", ["a@x", "b@x", "c@x"]),
        ("emails\na@x\n", ["a@x"]),
        ("E-mail Address\na@x\n", ["a@x"]),
        ("EMAIL\na@x\n", ["a@x"]),
        ('name,email,age\nAnn,a@x,5\n"Bob, jr",b@x,6\nshort\n', ["a@x", "b@x"]),
        ("name;email\nAnn;a@x\n", ["a@x"]),
        ("name\temail\nAnn\ta@x\n", ["a@x"]),
        ("x,y\na,b\n", ["x", "a"]),
        ("a@x, b@x,c@x", ["a@x", "b@x", "c@x"]),
        ("b@x\na@x\nb@x\n a@x \n", ["b@x", "a@x"]),
        ("\ufeffemail\na@x", ["a@x"]),
        ("email\nä@x\n".encode("utf-16"), ["ä@x"]),
        ('"a@x"\n"b ""x"""\n', ["a@x", 'b "x"']),
    ],
)
def test_what_is_read_of_a_text(content: bytes | str, values: list[str]) -> None:
    assert read(content) == values


def test_numbers_and_their_header() -> None:
    assert read("Customer no.\n5\n+7\n 05 \n", IDS) == [5, 7]
    assert read("5\n7", IDS) == [5, 7]
    assert read("name,id\nx,1\ny,2", IDS) == [1, 2]


def test_a_column_is_chosen_by_its_header() -> None:
    table = "email,Second E-Mail\na@x,b@x\nc@x,d@x\n"
    assert read(table, column="second e-mail") == ["b@x", "d@x"]
    assert refusal(table, column="phone") == (
        "There is no column 'phone' in the first line. There is: email, Second E-Mail."
    )
    assert read("user,login\n1,a\n", also=["login"]) == ["a"]


def test_a_workbook_is_read() -> None:
    rows = [("Ann", "a@x", 5), ("Bob", None, 6), ("Cy", "c@x", 7)]
    book = workbook(["name", "email", "id"], *rows)
    assert read(book) == ["a@x", "c@x"]
    assert read(book, IDS) == [5, 6, 7]
    assert read(book, column="name") == ["Ann", "Bob", "Cy"]


def test_a_wrong_line_is_named() -> None:
    assert refusal("1\n2\nx\n", IDS) == "Line 3: Enter a whole number, such as 42."
    assert refusal("1\n" + "x\n" * 30_000, IDS).endswith("29,997 more are wrong.")
    sheet = (
        SHEET
        + b'<row r="3"><c r="B3"><v>1</v></c></row><row r="5"><c r="B5"><v>1.5</v></c></row></sheetData>'
    )
    assert refusal(forged(sheet + b"</worksheet>"), IDS) == "Line 5: Enter a whole number, such as 42."
    assert "Line 2: Use at most 1,000 characters" in refusal("a\n" + "x" * 1001)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "holds no values"),
        (b"\n \n", "holds no values"),
        (b"emails\n", "holds no values"),
        ("email\nä@x\n".encode("latin-1"), "Line 2 is not UTF-8"),
        (b"\x89PNG\r\n\x1a\n\0\0", "no text"),
        (b"\xff\xfea", "begins like UTF-16"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "Save it as .xlsx"),
        (b"a@x\nb@x\0\n", "no text"),
        (b"x" * lists.SAMPLE + b"\nb\0\n", "Line 2: Take out the NUL"),
        (b'a\n"b\nc\nd\n', "A quote that ends in line 4"),
        (b"x" * 5_000_000, "Line 1 can't be read"),
        (b"PK\x03\x04 and nothing more", "damaged"),
        (forged(b"no sheet"), "no Excel workbook"),
    ],
)
def test_a_file_that_is_no_list(content: bytes, words: str) -> None:
    told = refusal(content, Param("emails", "list", max_length=lists.SAMPLE))
    assert words in told
    assert told.endswith(".")


def test_a_file_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "FILE_LIMIT", 10)
    assert "at most 10 are read" in refusal("x" * 11)


def test_a_list_that_is_too_long() -> None:
    assert read("\n".join(map(str, range(LIST_ITEMS))), IDS)[-1] == LIST_ITEMS - 1
    assert "more than 1,000,000 values" in refusal("\n".join(map(str, range(LIST_ITEMS + 1))), IDS)


def test_two_cells_and_17_billion_between_them() -> None:
    first = b'<row r="1"><c r="A1"><v>1</v></c></row>'
    last = b'<row r="1048576"><c r="XFD1048576"><v>1</v></c></row></sheetData></worksheet>'
    assert "Save it as CSV" in refusal(forged(SHEET + first + last))


def test_a_bomb_is_refused_even_if_it_lies() -> None:
    book = forged(SHEET + b" " * 600_000_000)
    assert len(book) < 1_000_000
    assert "unpacks to 6" in refusal(book)
    size = (600_000_000 + len(SHEET)).to_bytes(4, "little")
    assert book.count(size) == 2
    assert refusal(book.replace(size, (1000).to_bytes(4, "little")))
