from __future__ import annotations

import pytest

from app.errors import InvalidParams
from app.extensions import db
from app.importers import Column, Importer
from app.imports import mapping
from app.imports.file.dialect import Dialect
from app.imports.file.header import ADDED
from app.models.user import User


class Members(Importer):
    key = "test_members"
    title = "Members"
    table = "members"
    natural_key = ("email",)
    columns = (
        Column(name="email", label="Address of mail", aliases=("e-mail", "mail"), required=True),
        Column(name="full_name", label="Name", aliases=("Naam",), required=True),
        Column(name="street", label="Straße"),
        Column(name="joined_on", type="date"),
        Column(name="plan", default="free", required=True),
    )


NOWHERE = dict.fromkeys(column.name for column in Members.columns)


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (["email", "full_name"], {"email": 0, "full_name": 1}),
        (["E-Mail", "NAAM"], {"email": 0, "full_name": 1}),
        (["fullName", "JoinedOn", "EMAIL"], {"full_name": 0, "joined_on": 1, "email": 2}),
        (["strasse", "joined on"], {"street": 0, "joined_on": 1}),
        (["Straße ", "Joined_On", "E_mail"], {"street": 0, "joined_on": 1, "email": 2}),
        (["email address", "Full name of member"], {"email": 0, "full_name": 1}),
        (["emial", "joinedon"], {"email": 0, "joined_on": 1}),
        (["x", "y", "1", ""], {}),
        # The best one wins, and each is used once.
        (["mail", "email"], {"email": 1}),
        (["name", "full name"], {"full_name": 1}),
    ],
)
def test_columns_are_found_by_name_and_likeness(header: list[str], found: dict[str, int]):
    assert mapping.match(Members(), header) == NOWHERE | found


def test_the_columns_of_refused_rows_go_nowhere():
    class Lines(Importer):
        columns = (Column(name="code"), Column(name="line"), Column(name="message"))

    header = ["number", "line", "column", "code", "message"]
    assert mapping.match(Lines(), header) == {"code": None, "line": None, "message": None}
    assert mapping.unused(header, {}) == ["number"]
    # Unless they are all that there is, or are not those four.
    assert mapping.match(Lines(), header[1:]) == {"code": 2, "line": 0, "message": 3}
    assert mapping.match(Lines(), ["line", "code"]) == {"code": 1, "line": 0, "message": None}


def test_what_was_chosen_goes_before_what_is_alike():
    header = ["email", "backup", "name"]
    chosen = NOWHERE | {"email": 1, "full_name": 2}
    assert mapping.match(Members(), header, remembered=chosen) == chosen
    # The importer lost a column since, or the file is another one: found anew.
    assert mapping.match(Members(), header, remembered=chosen | {"gone": 0})["email"] == 0
    assert mapping.match(Members(), ["email"], remembered=chosen)["email"] == 0


def test_a_mapping_may_name_the_columns_of_the_file():
    header = ["Mail", "Name", "Since"]
    given = {"email": "Mail", "full_name": 1, "joined_on": "since", "plan": None}
    assert mapping.check(Members(), header, given) == NOWHERE | {"email": 0, "full_name": 1, "joined_on": 2}


@pytest.mark.parametrize(
    ("given", "name", "text"),
    [
        ({"emial": 0}, "mapping", "Did you mean email?"),
        ({"email": "Nmae"}, "mapping.email", "Did you mean Name?"),
        ({"email": 7}, "mapping.email", "no place 7"),
        ({"email": True}, "mapping.email", "null"),
        ({"email": "Twice"}, "mapping.email", "2 columns"),
        ({"email": "Name", "full_name": 0}, "mapping.full_name", "goes to 'email' already"),
    ],
)
def test_a_wrong_mapping_is_refused(given: dict[str, object], name: str, text: str):
    with pytest.raises(InvalidParams) as caught:
        mapping.check(Members(), ["Name", "Mail", "Twice", "Twice"], given)
    assert text in caught.value.errors[name]


def test_what_is_missing_is_told():
    some = NOWHERE | {"full_name": 1}
    assert mapping.problems(Members(), some, "upsert") == [
        "Address of mail is required, and no column of the file goes there."
    ]
    assert mapping.problems(Members(), some | {"email": 0}, "upsert") == []
    # To update, the key and one other column are enough.
    assert mapping.problems(Members(), NOWHERE | {"email": 0, "street": 1}, "update") == []
    assert "nothing to update" in mapping.problems(Members(), NOWHERE | {"email": 0}, "update")[0]
    assert "Choose at least one" in mapping.problems(Members(), NOWHERE, "insert")[0]


def test_a_mapping_is_remembered_by_person_and_header(app, member, other):
    header, chosen = ["a", "b"], NOWHERE | {"email": 1, "full_name": 0}
    with app.app_context():
        mine, theirs = db.session.get_one(User, member.id), db.session.get_one(User, other.id)
        mapping.remember(mine, Members(), header, chosen, Dialect(decimal=","))
        mapping.remember(mine, Members(), header, chosen | {"street": None}, Dialect(dates="dmy"))
        db.session.commit()
        found = mapping.remembered(mine, Members(), header)
        assert found is not None
        assert found.mapping == chosen
        assert Dialect.of(found.dialect) == Dialect(dates="dmy")
        # The refused rows of the file come back with four columns more.
        assert mapping.remembered(mine, Members(), [*header, *ADDED]) is found
        assert mapping.remembered(mine, Members(), ["b", "a"]) is None
        assert mapping.remembered(theirs, Members(), header) is None
