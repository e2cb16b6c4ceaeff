"""Python values as the text that PostgreSQL writes for them, and names that no other column has."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, time, timedelta
from decimal import Decimal
from math import isfinite, isnan, nextafter

# PostgreSQL's limit for names, in bytes.
NAME_BYTES = 63
# What an array's element can't be without quotes.
_QUOTED_ELEMENT = re.compile(r'[{},"\\\s]|^$|^null$', re.IGNORECASE)


def as_text(value: object) -> str:
    match value:
        case str():
            return value
        case bool():
            return "t" if value else "f"
        case float():
            return as_number(value)
        case Decimal():
            return str(value) if not value.is_finite() else format(value, "f")
        case datetime():
            text = value.isoformat(sep=" ")
            return _zone_cut(_cut(text)) if value.tzinfo else _cut(text)
        case time():
            return _zone_cut(_cut(value.isoformat())) if value.tzinfo else _cut(value.isoformat())
        case timedelta():
            return duration(value)
        case bytes() | bytearray() | memoryview():
            return "\\x" + bytes(value).hex()
        case Mapping():
            return json.dumps(value, ensure_ascii=False, default=as_text)
        case list() | tuple():
            return _array(value)
        case _:
            return str(value)


def as_number(value: float) -> str:
    """The shortest text that gives the number back: 1.5, 1e+15, -0, NaN, -Infinity."""
    if isnan(value):
        return "NaN"
    if not isfinite(value):
        return "Infinity" if value > 0 else "-Infinity"
    text = repr(value)
    if abs(value) < 1e15:
        return text.removesuffix(".0")
    if _halfway(value, text):
        text = f"{value:.16e}"
    # From 1e15 on PostgreSQL writes an exponent, where Python does from 1e16 on.
    mantissa, _, exponent = text.removesuffix(".0").partition("e")
    whole, _, fraction = mantissa.removeprefix("-").partition(".")
    digits = (whole + fraction).rstrip("0")
    sign, point = "-" * (value < 0), "." * (len(digits) > 1)
    return f"{sign}{digits[0]}{point}{digits[1:]}e+{int(exponent or 0) + len(whole) - 1:02}"


def _halfway(value: float, text: str) -> bool:
    """Whether the text lies just between the value and the next one, where PostgreSQL takes a digit more."""
    if abs(value) < 2**53:
        return False
    exact = int(Decimal(text))
    return any(2 * exact == int(value) + int(nextafter(value, to)) for to in (0, value * 2) if isfinite(to))


def duration(value: timedelta) -> str:
    """ISO 8601: P1DT2H3M4.5S. Every part carries the sign, as PostgreSQL has it."""
    sign, rest = ("-", -value) if value < timedelta() else ("", value)
    minutes, seconds = divmod(rest.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    fraction = f".{rest.microseconds:06}".rstrip("0").rstrip(".")
    parts = [(hours, "H", ""), (minutes, "M", ""), (seconds, "S", fraction)]
    clock = "".join(f"{sign}{count}{extra}{unit}" for count, unit, extra in parts if count or extra)
    days = f"{sign}{rest.days}D" if rest.days else ""
    return f"P{days}{'T' + clock if clock else ''}" if days or clock else "PT0S"


def distinct(names: Sequence[str]) -> list[str]:
    """The names, a number added to those that stood there before: a, a_2, a_3."""
    found: dict[str, None] = {}
    for name in names:
        number, unused = 1, name
        while unused in found or (number > 1 and unused in names):
            number += 1
            unused = _shortened(name, f"_{number}")
        found[unused] = None
    return list(found)


def _shortened(name: str, ending: str) -> str:
    room = NAME_BYTES - len(ending)
    return name.encode()[:room].decode(errors="ignore") + ending


def _cut(text: str) -> str:
    """Microseconds without the zeros at their end."""
    return re.sub(r"(\.\d*?)0+(?=[+-]|$)", r"\1", text)


def _zone_cut(text: str) -> str:
    return text.removesuffix(":00")


def _array(values: Sequence[object]) -> str:
    return "{" + ",".join(map(_element, values)) + "}"


def _element(value: object) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, list | tuple):
        return _array(value)
    text = as_text(value)
    if not _QUOTED_ELEMENT.search(text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
