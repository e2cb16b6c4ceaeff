"""Names of an archive's files, whatever somebody wanted to call them."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.formats._members import FORBIDDEN, LONGEST, RESERVED, Names, safe


@given(
    st.lists(
        st.text(max_size=300) | st.sampled_from(["a", "A", "ﬁ", "fi", "CON", "a (2)", ".", ""]), max_size=30
    )
)
def test_any_names_are_safe_and_unlike(wanted: list[str]) -> None:
    names = Names("csv")
    found = [names.take(name) for name in wanted]
    assert len({unicodedata.normalize("NFKC", name).casefold() for name in found}) == len(wanted)
    for name in found:
        stem = name.removesuffix(".csv")
        assert stem
        assert stem == stem.strip(" .")
        assert name.isprintable()
        assert not FORBIDDEN & set(name)
        assert stem.partition(".")[0].rstrip().upper() not in RESERVED
        assert len(name.encode()) <= LONGEST + 20


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        ("Spring offer 2026", "Spring offer 2026"),
        ("../../etc/passwd", "_.._etc_passwd"),
        ("C:\\Windows\\x", "C__Windows_x"),
        ("nul.txt", "_nul.txt"),
        ("com¹", "_com¹"),
        ("console", "console"),
        ("e\u0301", "é"),
        ("a\u202egpj", "a_gpj"),
        ("\ud800", "_"),
        (" . ", "file"),
        ("x" * 500, "x" * 180),
        ("名" * 100, "名" * 60),
    ],
)
def test_what_becomes_of_a_name(wanted: str, name: str) -> None:
    assert safe(wanted) == name
