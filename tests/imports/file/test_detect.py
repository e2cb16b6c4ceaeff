from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.formats import find
from app.imports.file import correction
from app.imports.file.detect import detect, samples
from app.imports.file.dialect import Dialect
from tests.imports.file.corpus import FILES, File


@dataclass(frozen=True)
class Plain:
    container: str = "none"
    content: str = "text"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_files_are_understood(file: File):
    found = detect(file.content, Plain())
    assert found.dialect.delimiter == file.delimiter
    assert (found.header if found.dialect.header else None) == file.header
    expected = Dialect.of({"delimiter": file.delimiter, "header": file.header is not None} | file.other)
    assert found.dialect == expected
    for member in file.unsure:
        assert not found.why[member].sure, f"{member} is said to be sure"


def test_what_is_known_needs_no_detection():
    text = b"a;b,c\n1;2,5\n3;4,5\n"
    assert detect(text, Plain()).dialect.delimiter == ";"
    found = detect(text, Plain(), known={"delimiter": ",", "header": False, "decimal": "."})
    assert (found.dialect.delimiter, found.dialect.header, found.dialect.decimal) == (",", False, ".")
    assert found.header == ["Column 1", "Column 2"]
    assert not {"delimiter", "header", "decimal"} & found.why.keys()


def test_names_of_the_target_make_a_header():
    text = b"Ort,Strasse\nBonn,Am Hof\nOrt,Strasse\n"
    assert not detect(text, Plain()).dialect.header
    assert detect(text, Plain(), names=["ort", "Straße"]).dialect.header


def test_a_head_may_be_cut_anywhere():
    text = ("id;näme;bïrn\n" + "1;Zoë;12,5\n" * 40 + '2;"two\nlines";3,5\n' * 40).encode()
    whole = detect(text, Plain())
    for end in range(300, 700):
        found = detect(text[:end], Plain(), whole=False)
        assert (found.dialect, found.header) == (whole.dialect, whole.header)


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"\n\n\r\n", b"\xef\xbb\xbf", b'"', b"\xff", b"\0", b"a", b"1"]
)
def test_next_to_nothing_is_no_trouble(content: bytes):
    found = detect(content, Plain())
    assert Dialect.of(found.dialect.as_json()) == found.dialect
    assert len(found.header) <= 1


def test_ten_thousand_columns():
    line = ",".join(f"c{n}" for n in range(10_000))
    found = detect(f"{line}\n{','.join('7' for _ in range(10_000))}\n".encode(), Plain())
    assert len(found.header) == 10_000
    assert found.dialect.header


def test_a_workbook_is_not_decoded_again():
    found = detect("Name,Größe\nAnn,1.5\n".encode(), Plain("zip", "xlsx"))
    assert found.dialect == Dialect(container="zip", content="xlsx")
    assert found.header == ["Name", "Größe"]


def test_samples_are_the_first_different_values():
    text = "id,name\n1,Ann\n2,Ann\n3,\n4,Bob\n5,Cid\n6,Dan\n"
    assert samples(text, Dialect()) == [["1", "2", "3"], ["Ann", "Bob", "Cid"]]
    assert samples("", Dialect()) == []


def test_apostrophes_of_our_own_files_for_spreadsheets_are_known_as_such():
    rows = [(1, "0012"), (2, "=1+1"), (3, "plain")]
    text = b"".join(find("csv", "spreadsheet")[0].writing("spreadsheet").rows(["id", "code"], rows))
    found = detect(text, Plain())
    assert found.dialect.apostrophes
    assert (
        found.why["apostrophes"].text == "The one before '0012' keeps a spreadsheet from guessing, and goes."
    )
    assert not detect(text.removeprefix("\ufeff".encode()), Plain()).dialect.apostrophes
    assert not detect(text, Plain(), known={"apostrophes": False}).dialect.apostrophes


@pytest.mark.parametrize("end", ['\n7,"open,2,x\n', '\n7,"cut o', '\n7,"say "hi"",2,x\n8,"fine",1,x\n'])
@pytest.mark.parametrize("quoted", [1, 5, 50])
def test_a_quote_that_is_not_closed_spoils_no_others(quoted: int, end: str):
    """Were quotes text for its sake, every cell in quotes would be stored with them."""
    rows = [f'{n},"in ""quotes""",{n},x' if n < quoted else f"{n},bare,{n},x" for n in range(60)]
    found = detect(("id,name,amount,note\n" + "\n".join(rows) + end).encode(), Plain())
    assert (found.dialect.quote, found.dialect.delimiter) == ('"', ",")


def test_a_file_that_ends_within_quotes_was_cut_off():
    found = detect(b'id,name,note\n1,Ann,plain\n2,Bob,plain\n3,Cid,"cut o', Plain())
    assert found.dialect.quote == '"'


def test_a_line_in_another_encoding_spoils_no_others():
    """It is refused by itself; read as that encoding, all other letters would be wrong."""
    rows = [f"{n},Zoë,é{n}".encode() for n in range(5)] + [b"6,Zo\xeb,plain", b"7,Ann,plain"]
    found = detect(b"id,name,note\n" + b"\n".join(rows) + b"\n", Plain())
    assert found.dialect.encoding == "utf-8"
    assert found.why["encoding"].text == "Most of it is right in UTF-8, but 1 line is not."
    assert not found.why["encoding"].sure


@pytest.mark.parametrize("columns", ["id;name", "id;name;note"])
def test_the_line_that_tells_a_spreadsheet_the_delimiter(columns: str):
    rows = [";".join(f"{n}" for _ in columns.split(";")) for n in range(4)]
    found = detect("\r\n".join(["sep=;", columns, *rows, ""]).encode(), Plain())
    assert (found.dialect.delimiter, found.dialect.skip) == (";", 1)
    assert found.header == columns.split(";")


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_nothing_at_all_breaks_it(content: bytes):
    for whole in (True, False):
        found = detect(content, Plain(), whole=whole)
        known = found.dialect.as_json()
        given = {name: known[name] for name in known.keys() - {"container", "content"}}
        # Whatever is found could have been given by a person.
        assert correction.problems(given) == {}
        samples(content.decode("utf-8", "replace"), found.dialect)
