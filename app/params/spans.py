"""Relative dates in words: "yesterday", "7 days ago", "last quarter". A span is its first and last day."""

from __future__ import annotations

import re
from datetime import date, timedelta

Span = tuple[date, date]

EXAMPLES = ("today", "yesterday", "7 days ago", "3 months ago", "this month", "last quarter", "last year")

_DAYS = {"yesterday": -1, "today": 0, "tomorrow": 1}
_STEPS = {"last": -1, "this": 0, "next": 1}
_MONTHS = {"month": 1, "quarter": 3, "year": 12}
_AGO = re.compile(r"(\d{1,4}) (day|week|month|quarter|year)s? ago", re.ASCII)
_UNIT = re.compile(r"(last|this|next) (week|month|quarter|year)")


def span(words: str, today: date) -> Span | None:
    """What `words` mean on `today`; None when they are not such words. Weeks begin on Monday.

    "3 months ago" is one day, the same of the month or the month's last; "last month" is the whole month.
    Raises OverflowError when the day lies outside the calendar.
    """
    words = " ".join(words.lower().split())
    if words in _DAYS:
        return _day(today + timedelta(days=_DAYS[words]))
    if found := _AGO.fullmatch(words):
        return _day(_ago(today, int(found[1]), found[2]))
    if found := _UNIT.fullmatch(words):
        return _unit(today, _STEPS[found[1]], found[2])
    return None


def _day(day: date) -> Span:
    return day, day


def _ago(today: date, count: int, unit: str) -> date:
    if unit in _MONTHS:
        first = _month(today, -count * _MONTHS[unit])
        return first.replace(day=min(today.day, _last_day(first).day))
    return today - timedelta(days=count * (7 if unit == "week" else 1))


def _unit(today: date, step: int, unit: str) -> Span:
    if unit == "week":
        monday = today + timedelta(days=7 * step - today.weekday())
        return monday, monday + timedelta(days=6)
    months = _MONTHS[unit]
    first = _month(today, step * months - (today.month - 1) % months)
    return first, _last_day(_month(first, months - 1))


def _month(day: date, shift: int) -> date:
    """The first day of the month `shift` months away."""
    year, month = divmod(day.year * 12 + day.month - 1 + shift, 12)
    if not date.min.year <= year <= date.max.year:
        raise OverflowError("date value out of range")
    return date(year, month + 1, 1)


def _last_day(first: date) -> date:
    return date.max if (first.year, first.month) == (9999, 12) else _month(first, 1) - timedelta(days=1)
