"""How numbers, sizes, times and durations read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from app.web import filters

NOW = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1.00 kB"),
        (85_312_345, "85.3 MB"),
        (999_499, "999 kB"),
        (999_500, "1.00 MB"),
        (123_000_000_000, "123 GB"),
        (5 * 10**18, "5000 PB"),
    ],
)
def test_sizes(count: int, words: str) -> None:
    assert filters.size(count) == words


@pytest.mark.parametrize(
    ("span", "words"),
    [
        (0.0, "0.0 s"),
        (-3.0, "0.0 s"),
        (0, "0 s"),
        (3, "3 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min"),
        (200, "3 min 20 s"),
        (timedelta(minutes=60), "1 h"),
        (timedelta(seconds=3725), "1 h 2 min"),
    ],
)
def test_durations(span: timedelta | float, words: str) -> None:
    assert filters.duration(span) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "just now"),
        (-59, "just now"),
        (30, "in less than a minute"),
        (-60, "1 minute ago"),
        (-3 * 3600, "3 hours ago"),
        (86_399, "in 23 hours"),
        (86_400, "in 1 day"),
        (-40 * 86_400, "40 days ago"),
    ],
)
def test_relative_times(seconds: int, words: str) -> None:
    assert filters.relative(NOW + timedelta(seconds=seconds), NOW) == words


def test_the_exact_time_is_on_hover() -> None:
    at = datetime(2026, 1, 31, 14, 0, 0, 123456, tzinfo=timezone(timedelta(hours=2)))
    html = filters.ago(at)
    assert 'datetime="2026-01-31T12:00:00.123456Z"' in html
    assert 'title="2026-01-31 12:00:00 UTC"' in html
    assert filters.clock_time(at) == "12:00:00.123"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, '<span class="muted">any</span>'),
        ([], '<span class="muted">any</span>'),
        (True, "yes"),
        (False, "no"),
        (0, "0"),
        ("<b>", "&lt;b&gt;"),
        (["a", "<b>"], "a, &lt;b&gt;"),
        (list(range(1005)), "0, 1, 2, 3, 4 and 1,000 more"),
    ],
)
def test_params_as_a_person_says_them(value: object, words: str) -> None:
    assert str(filters.spoken(value)) == words
