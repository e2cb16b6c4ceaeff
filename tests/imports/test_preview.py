from __future__ import annotations

from dataclasses import replace

from app.dev.child import free_port
from app.importers import Column, Importer, Reference, Refused
from app.imports.file.dialect import Dialect
from app.imports.file.plain import HEAD
from app.imports.preview import Preview, preview
from app.models.imports import Import
from tests.importing import landed


class Things(Importer):
    key = "things"
    table = "things"
    natural_key = ("name",)
    columns = (
        Column(name="name", required=True, max_length=20),
        Column(name="amount", type="decimal"),
        Column(name="made_on", type="date"),
        Column(name="state", choices=("open", "done"), default="open"),
        Column(name="remark"),
    )


def shown(
    text: str, header: list[str], count: int = 50, importer: Importer | None = None, **dialect
) -> Preview:
    importer = importer or Things()
    places = {
        column.name: header.index(column.name) if column.name in header else None
        for column in importer.columns
    }
    import_ = Import(dialect=Dialect(**dialect).as_json(), header=header, mapping=places)
    return preview(importer, import_, text.encode(), count)


def cells(found: Preview) -> list[list[str | None]]:
    return [[cell.text for cell in row.cells] for row in found.rows]


def test_rows_are_shown_as_they_would_be_stored():
    found = shown(
        "amount;name;made_on\n1.234,5;Ann;31.01.2026\n;Bob;\n",
        ["amount", "name", "made_on"],
        delimiter=";",
        decimal=",",
        dates="dmy",
    )
    # What the file lacks and has no default is not written, and so not shown.
    assert [column.name for column in found.columns] == ["name", "amount", "made_on", "state"]
    assert cells(found) == [["Ann", "1234.5", "2026-01-31", "open"], ["Bob", None, None, "open"]]
    assert [row.line for row in found.rows] == [2, 3]
    assert found.refused == 0
    assert found.trouble is None


def test_errors_stand_where_they_are():
    found = shown(
        'name,amount,state\nAnn,1,open\n,2,done\nBob,many,lost\nCid,3,done\n"two\nlines",4,open\nDan\n',
        ["name", "amount", "state"],
    )
    assert [row.line for row in found.rows] == [2, 3, 4, 5, 6, 8]
    assert [row.refused for row in found.rows] == [False, True, True, False, False, True]
    empty, wrong, ragged = (found.rows[place] for place in (1, 2, 5))
    assert empty.cells[0].error
    assert not empty.cells[1].error
    # A refused row is shown as it is in the file.
    assert [cell.text for cell in wrong.cells] == ["Bob", "many", "lost"]
    assert wrong.cells[1].error
    assert ragged.errors
    assert found.refused == 3


def test_a_hook_s_word_is_shown():
    class Hooked(Things):
        @staticmethod
        def row(values):
            if values["name"] == "Bob":
                raise Refused("Bob is no thing.", column="name")
            return values | {"name": values["name"].upper()}

    found = shown("name\nAnn\nBob\n", ["name"], importer=Hooked())
    assert cells(found) == [["ANN", "open"], ["Bob", None]]
    assert found.rows[1].cells[0].error == "Bob is no thing."


def test_only_the_first_rows_are_shown():
    text = "name\n" + "".join(f"n{n}\n" for n in range(200))
    assert len(shown(text, ["name"]).rows) == 50
    assert len(shown(text, ["name"], count=3).rows) == 3


def test_lines_before_the_table_and_blank_ones_are_no_rows():
    found = shown("A list\n\nname,remark\n\nAnn,x\n\nBob,y\n", ["name", "remark"], skip=2)
    assert [(row.line, row.cells[0].text) for row in found.rows] == [(5, "Ann"), (7, "Bob")]


def test_a_row_cut_off_by_the_head_s_end_is_not_shown():
    text = "name,remark\nAnn,x\nBob," + "y" * HEAD
    assert cells(shown(text[:HEAD], ["name", "remark"])) == [["Ann", "open", "x"]]


def test_long_cells_are_cut():
    found = shown("name,remark\nAnn," + "x" * 1000 + "\n", ["name", "remark"])
    text = found.rows[0].cells[-1].text
    assert text is not None
    assert len(text) == 200
    assert text.endswith("…")


def test_a_file_without_rows_says_so():
    assert shown("name\n", ["name"]).trouble
    assert shown("", ["name"]).trouble


class Parcels(Importer):
    key, source, table, natural_key = "parcels", "landing", "parcels", ("id",)
    columns = (
        Column(name="id", type="int", required=True),
        Column(name="sender", references=Reference("senders", "name")),
    )


PARCELS = """
CREATE SCHEMA landing;
CREATE TABLE landing.senders (id int PRIMARY KEY, name text UNIQUE);
CREATE TABLE landing.parcels (id int PRIMARY KEY, sender int REFERENCES landing.senders);
INSERT INTO landing.senders VALUES (7, 'Ada')
"""


def test_the_table_is_asked_for_what_rows_refer_to(app, database, member):
    import_ = Import(
        dialect=Dialect().as_json(), header=["id", "sender"], mapping={"id": 0, "sender": 1}, mode="upsert"
    )
    head = b"id,sender\n1,Ada\n2,Nobody\n99999999999,Ada\n"
    with landed(app, database, member, Parcels(), table=PARCELS):
        found = preview(Parcels(), import_, head, ask=True)
    assert [row.refused for row in found.rows] == [False, True, True]
    assert found.rows[1].cells[1].error == "There is no row of senders with this name."
    assert found.rows[2].cells[0].error is not None


def test_a_target_that_does_not_answer_is_done_without(app, database, member):
    import_ = Import(dialect=Dialect().as_json(), header=["id"], mapping={"id": 0}, mode="upsert")
    with landed(app, database, member, Parcels(), table=PARCELS):
        app.config["WAYBILL"] = replace(
            app.config["WAYBILL"], targets={"landing": f"postgresql://u:p@127.0.0.1:{free_port()}/none"}
        )
        found = preview(Parcels(), import_, b"id\n1\n", ask=True)
    assert [row.refused for row in found.rows] == [False]
