"""The text of one cell as a value, however it is written; and what is wrong with it. Pure."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cached_property
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from app.imports.file.dialect import Dialect

# Digits of a decimal, on each side of its mark.
DIGITS = 38
TRUE = frozenset({"true", "t", "yes", "y", "on", "1"})
FALSE = frozenset({"false", "f", "no", "n", "off", "0"})

_WRONG = {
    "int": "is no whole number; write it like 42.",
    "bool": "is neither true nor false; write one of them.",
    "uuid": "is no UUID; write it like 123e4567-e89b-12d3-a456-426614174000.",
}
_DAYS = {"iso": "2026-01-31", "dmy": "31.01.2026", "mdy": "01/31/2026"}
_ISO_DAY = r"(?P<y>\d{4})(?P<s>[-/.])(?P<m>\d{1,2})(?P=s)(?P<d>\d{1,2})"
_DAY = {
    "iso": _ISO_DAY,
    "dmy": r"(?P<d>\d{1,2})(?P<s>[-/.])(?P<m>\d{1,2})(?P=s)(?P<y>\d{4}|\d{2})",
    "mdy": r"(?P<m>\d{1,2})(?P<s>[-/.])(?P<d>\d{1,2})(?P=s)(?P<y>\d{4}|\d{2})",
}
_CLOCK = r"(?P<H>\d{1,2}):(?P<M>\d{2})(:(?P<S>\d{2})([.,](?P<f>\d{1,9}))?)?(\s?(?P<half>[AaPp])\.?[Mm]\.?)?"
_ZONE = r"\s?(?P<zone>[Zz]|UTC|[+-]\d{2}(:?\d{2})?)?"
_ESCAPED_NUL = re.compile(r"(?<!\\)(\\\\)*\\u0000")
# What may stand between groups of three digits, beside the mark's counterpart.
_GROUPING = "' \u00a0\u2009\u202f\u2019"


class Single:
    """Reads one cell after the other; None where it is no such value."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect

    def complaint(self, kind: str, text: str) -> str:
        """What is wrong with a cell that is no such value."""
        said = shown(text)
        if kind == "int" and self.exact(text) is not None:
            return f"{said} has a fraction or is too large for a whole number of 64 bits."
        if kind == "decimal":
            if self._number(text) is not None:
                return f"{said} has more than {DIGITS} digits on one side of its decimal mark."
            return f"{said} is no number; write it like 1234{self._dialect.decimal}50."
        if kind == "json":
            return f"{said} is no JSON: {why_no_json(text)}."
        day = _DAYS[self._dialect.dates]
        if kind in ("date", "datetime"):
            what, example = ("date", day) if kind == "date" else ("date with a time", f"{day} 13:45:00")
            return f"{said} is no {what}; write it like {example}."
        return f"{said} {_WRONG[kind]}"

    def whole(self, text: str) -> int | None:
        exact = self.exact(text)
        value = Decimal(exact) if exact is not None else None
        if value is None or value != value.to_integral_value() or not -(2**63) <= value < 2**63:
            return None
        return int(value)

    def exact(self, text: str) -> str | None:
        """A decimal as PostgreSQL writes it, without an exponent."""
        number = self._number(text)
        if number is None or ("e" not in number and len(number) <= DIGITS):
            return number
        digits = format(Decimal(number), "f")
        whole, _, fraction = digits.lstrip("-").partition(".")
        return digits if max(len(whole), len(fraction)) <= DIGITS else None

    def _number(self, text: str) -> str | None:
        """As Python and PostgreSQL write it; None if it is none."""
        found = self._numbers.fullmatch(text.replace("\N{MINUS SIGN}", "-"))
        if not found:
            return None
        whole = re.sub(r"\D", "", found["whole"] or found["groups"] or "0")
        fraction = f".{found['fraction']}" if found["fraction"] else ""
        exponent = f"e{found['exponent']}" if found["exponent"] else ""
        return f"{'-' if found['sign'] == '-' else ''}{whole}{fraction}{exponent}"

    @cached_property
    def _numbers(self) -> re.Pattern[str]:
        mark = re.escape(self._dialect.decimal)
        between = re.escape(("," if self._dialect.decimal == "." else ".") + _GROUPING)
        return re.compile(
            rf"(?P<sign>[-+]?)(?={mark}?[0-9])"
            rf"((?P<groups>[0-9]{{1,3}}(?P<between>[{between}])[0-9]{{3}}((?P=between)[0-9]{{3}})*)"
            rf"|(?P<whole>[0-9]*))({mark}(?P<fraction>[0-9]*))?([eE](?P<exponent>[-+]?[0-9]{{1,3}}))?"
        )

    def day(self, text: str) -> date | None:
        """A date, perhaps with a midnight as spreadsheets add it."""
        found = self._parts(text)
        if found is None or found["zone"] or found["half"] or any(int(found[name] or 0) for name in "HMSf"):
            return None
        return _date(found)

    def moment(self, text: str) -> datetime | None:
        """In UTC; without an offset it is what clocks of the dialect's zone showed."""
        found = self._parts(text)
        day = _date(found) if found else None
        if found is None or day is None:
            return None
        hour, half = int(found["H"] or 0), (found["half"] or "").lower()
        if half:
            if not 1 <= hour <= 12:
                return None
            hour = hour % 12 + 12 * (half == "p")
        fraction = (found["f"] or "").ljust(6, "0")
        if fraction[6:].strip("0"):
            return None
        try:
            clock = datetime(
                *(day.year, day.month, day.day, hour, int(found["M"] or 0), int(found["S"] or 0)),
                int(fraction[:6]),
                tzinfo=self._zone(found["zone"]),
            )
            return clock.astimezone(UTC)
        except (ValueError, OverflowError):
            return None

    def _zone(self, offset: str | None) -> Any:
        if not offset:
            return ZoneInfo(self._dialect.zone)
        return UTC if offset.upper() in ("Z", "UTC") else datetime.strptime(_minutes(offset), "%z").tzinfo

    def _parts(self, text: str) -> re.Match[str] | None:
        found = (pattern.fullmatch(text) for pattern in self._days)
        return next(filter(None, found), None)

    @cached_property
    def _days(self) -> list[re.Pattern[str]]:
        """The dialect's way first; ISO's can't be mistaken for another."""
        days = dict.fromkeys((_DAY[self._dialect.dates], _ISO_DAY))
        return [re.compile(rf"{day}([ T,]\s?{_CLOCK}{_ZONE})?", re.ASCII) for day in days]


def shown(text: str) -> str:
    """A cell in a message."""
    short = text if len(text) <= 60 else text[:59] + "…"
    return f"'{short}'" if short.isprintable() else repr(short)


def truth(text: str) -> bool | None:
    word = text.lower()
    return True if word in TRUE else False if word in FALSE else None


def _date(found: re.Match[str]) -> date | None:
    year = int(found["y"])
    if len(found["y"]) == 2:
        year += 1900 if year >= 69 else 2000
    try:
        return date(year, int(found["m"]), int(found["d"]))
    except ValueError:
        return None


def _minutes(offset: str) -> str:
    return offset if len(offset) > 3 else offset + "00"


def uuid(text: str) -> str | None:
    try:
        return str(UUID(text))
    except ValueError:
        return None


def why_no_json(text: str) -> str:
    """ "" if it is."""
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        return f"{error.msg} (character {error.pos + 1:,})"
    except ValueError as error:
        return str(error)
    except RecursionError:
        return "it is nested too deeply"
    if "\\u" not in text:
        return ""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return "it has half a character (a lone surrogate)"
    return "it has a NUL character" if _ESCAPED_NUL.search(text) else ""


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
