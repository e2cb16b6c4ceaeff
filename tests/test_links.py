"""Download tokens: only ours are believed, only whole, only in their time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import links
from app.errors import LinkExpired, LinkInvalid

KEYS = ["a secret key of the tests, long enough to be one"]
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LATER = NOW + timedelta(hours=24)

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

ids = st.uuids()
generations = st.integers(0, 2**24 - 1)
times = st.datetimes(datetime(2020, 1, 1), datetime(2500, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@given(ids, generations, times)
def test_what_was_signed_is_read(artifact_id: UUID, generation: int, expires_at: datetime) -> None:
    token = links.sign(artifact_id, generation, expires_at, keys=KEYS)
    claim = links.read(token, expires_at - timedelta(seconds=1), keys=KEYS)
    assert (claim.artifact_id, claim.generation) == (artifact_id, generation)
    assert timedelta(0) <= claim.expires_at - expires_at < timedelta(seconds=1)


@given(ids, st.integers(0, 55), st.integers(0, 5))
def test_one_flipped_bit_is_refused(artifact_id: UUID, place: int, bit: int) -> None:
    token = links.sign(artifact_id, 1, LATER, keys=KEYS)
    flipped = ALPHABET[ALPHABET.index(token[place]) ^ (1 << bit)]
    with pytest.raises(LinkInvalid):
        links.read(token[:place] + flipped + token[place + 1 :], NOW, keys=KEYS)


@given(st.text(max_size=80) | st.text(alphabet=ALPHABET, min_size=56, max_size=56))
def test_what_we_never_signed_is_refused(token: str) -> None:
    with pytest.raises(LinkInvalid):
        links.read(token, NOW, keys=KEYS)


@pytest.mark.parametrize("spoil", ["{}=", "{} ", " {}", "{}\n", "{}A", "\x00{}", "{}%00"])
def test_a_token_has_one_spelling(spoil: str) -> None:
    token = links.sign(uuid4(), 1, LATER, keys=KEYS)
    with pytest.raises(LinkInvalid):
        links.read(spoil.format(token), NOW, keys=KEYS)


def test_a_cut_token_is_refused_in_words() -> None:
    token = links.sign(uuid4(), 1, LATER, keys=KEYS)
    with pytest.raises(LinkInvalid, match="copied whole"):
        links.read(token[:-4], NOW, keys=KEYS)


def test_a_token_dies_with_its_time_and_says_what_it_was() -> None:
    artifact_id = uuid4()
    token = links.sign(artifact_id, 3, LATER, keys=KEYS)
    links.read(token, LATER - timedelta(seconds=1), keys=KEYS)
    with pytest.raises(LinkExpired) as caught:
        links.read(token, LATER, keys=KEYS)
    assert isinstance(caught.value, links.LinkLapsed)
    assert caught.value.claim == links.LinkClaim(artifact_id, 3, LATER)


def test_an_earlier_key_is_believed_until_it_is_taken_away() -> None:
    token = links.sign(uuid4(), 1, LATER, keys=KEYS)
    links.read(token, NOW, keys=["a newer secret key", *KEYS])
    with pytest.raises(LinkInvalid):
        links.read(token, NOW, keys=["a newer secret key"])


def test_the_first_key_signs() -> None:
    token = links.sign(uuid4(), 1, LATER, keys=["a newer secret key", *KEYS])
    links.read(token, NOW, keys=["a newer secret key"])


def test_a_token_is_short_and_needs_no_quoting() -> None:
    token = links.sign(uuid4(), 2**24 - 1, LATER, keys=KEYS)
    assert len(token) == 56
    assert set(token) <= set(ALPHABET)
