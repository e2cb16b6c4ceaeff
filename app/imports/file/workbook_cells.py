"""Values of a workbook's cells as plain text: numbers as they are meant, days in ISO, text quoted. Pure."""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal

# What a number format makes of a number.
DATE, DATETIME, TIME, ELAPSED = "date", "datetime", "time", "elapsed"
# The formats that every workbook knows by number.
BUILT_IN = (
    dict.fromkeys((14, 15, 16, 17, *range(27, 32), 36, *range(50, 55), 57, 58), DATE)
    | dict.fromkeys((18, 19, 20, 21, 32, 33, 34, 35, 45, 47, 55, 56), TIME)
    | {22: DATETIME, 46: ELAPSED}
)
# What in a format code is no code: "text", \x, _x, *x, [colour], and 12-hour marks.
NO_CODE = re.compile(r'"[^"]*"|\\.|_.|\*.|\[(?![hms]+\])[^]]*\]|AM/PM|A/P', re.IGNORECASE)
SPENT = re.compile(r"\[[hms]+\]", re.IGNORECASE)
SPECIAL = re.compile(r'[",\r\n]|^\s|\s$')
ESCAPED = re.compile(r"_x([0-9A-Fa-f]{4})_")
WHOLE = re.compile(r"-?[0-9]{1,40}")
SHORT = re.compile(r"-?(?=[0-9.]{1,16}$)[0-9]+\.[0-9]*[1-9]")
# Day 0 of the calendar that counts from 1900, which knows a 29th of February of that year; the last day.
EPOCH, LEAP_DAY, LAST_DAY = date(1899, 12, 30).toordinal(), 60, 2958465
# The other calendar's day 0.
SINCE_1904 = 1462
DAY = 24 * 3600 * 1000


def kind_of(code: str) -> str | None:
    """What a custom format code makes of a number; None: a number."""
    plain = NO_CODE.sub("", code.partition(";")[0]).lower()
    if SPENT.search(plain):
        return ELAPSED
    time = any(letter in plain for letter in "hs")
    if any(letter in plain for letter in "yd") or ("m" in plain and not time):
        return DATETIME if time else DATE
    return TIME if time else None


def text(value: str) -> bytes:
    """A text as a CSV cell."""
    if "_x" in value:
        value = ESCAPED.sub(lambda found: chr(int(found[1], 16)), value)
        value = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if SPECIAL.search(value):
        value = '"' + value.replace('"', '""') + '"'
    return value.encode()


def number(value: str) -> bytes:
    """With the 15 digits that a workbook shows, and never with an exponent."""
    if WHOLE.fullmatch(value) or SHORT.fullmatch(value):
        return value.encode()
    try:
        shown = f"{float(value):.15g}"
    except ValueError:
        return text(value)
    return (format(Decimal(shown), "f") if "e" in shown else shown).encode()


def instant(value: str, kind: str, *, since_1904: bool = False) -> bytes:
    """A number as the day or the time that its format shows."""
    try:
        days = float(value) + (SINCE_1904 if since_1904 and kind != ELAPSED else 0)
    except ValueError:
        return text(value)
    if not 0 <= days <= LAST_DAY + 1:
        return number(value)
    whole, rest = divmod(round(days * DAY), DAY)
    clock = _clock(rest)
    if kind == ELAPSED:
        return _clock(whole * DAY + rest).encode()
    if kind == DATE and not rest:
        return _day(whole).encode()
    if whole == 0 and kind != DATE:
        return clock.encode()
    return f"{_day(whole)} {clock}".encode()


def _day(day: int) -> str:
    if day == LEAP_DAY:
        return "1900-02-29"
    return date.fromordinal(EPOCH + day + (day < LEAP_DAY)).isoformat()


def _clock(thousandths: int) -> str:
    seconds, part = divmod(thousandths, 1000)
    shown = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"{shown}.{part:03}" if part else shown
