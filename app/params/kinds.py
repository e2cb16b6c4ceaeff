"""The types a param can have: how each is read, bounded, frozen to JSON, and described."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, tzinfo
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

from app.params.spans import EXAMPLES, span

if TYPE_CHECKING:
    from app.params import Param

Frozen = str | int | bool | list[str] | list[int] | dict[str, str | int] | None

INT64 = (-(2**63), 2**63 - 1)
DECIMAL_DIGITS = 100
LIST_ITEMS = 1_000_000

_INT = re.compile(r"[+-]?[0-9]{1,40}")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_DATETIME = re.compile(
    _DATE.pattern + r"[Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?([Zz]|[+-][0-9]{2}:?[0-9]{2})?"
)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_ITEM_END = re.compile(r"[\r\n,\t]+")
_TRUE = ("true", "yes", "on", "1")
_FALSE = ("false", "no", "off", "0")


class Refused(ValueError):
    """A value that a param does not take; the message is for the person who gave it."""


@dataclass(frozen=True)
class Moment:
    """When and where a relative date is resolved."""

    now: datetime
    tz: tzinfo

    @classmethod
    def at(cls, now: datetime, tz: tzinfo) -> Moment:
        return cls(now.astimezone(tz), tz)


@dataclass(frozen=True)
class Choice:
    """One value of an enum and the words a person sees."""

    value: str
    label: str

    @classmethod
    def of(cls, raw: Any) -> Choice:
        """From a value, a (value, label) pair, a {"value", "label"} table, or a Choice."""
        if isinstance(raw, Choice):
            return raw
        if isinstance(raw, Mapping):
            return cls(str(raw.get("value", "")), str(raw.get("label") or raw.get("value", "")))
        value, label = raw if isinstance(raw, (tuple, list)) and len(raw) == 2 else (raw, raw)
        return cls(str(value), str(label))


@dataclass(frozen=True)
class Reference:
    """A long list that is kept elsewhere, by the SHA-256 of its content."""

    sha256: str
    count: int

    def __len__(self) -> int:
        return self.count

    def frozen(self) -> dict[str, str | int]:
        return {"sha256": self.sha256, "count": self.count}

    @classmethod
    def of(cls, raw: object) -> Reference | None:
        """From what `frozen` gave; None for anything else."""
        match raw:
            case {"sha256": str(sha256), "count": int(count), **rest} if not rest:
                good = _SHA256.fullmatch(sha256) and type(count) is int and 0 < count <= LIST_ITEMS
                return cls(sha256, count) if good else None
        return None


class Kind(ABC):
    """One param type. `parse` takes raw or frozen values; its `moment` is None for frozen ones."""

    name = ""
    pg_type = ""
    hint = ""

    @abstractmethod
    def parse(self, param: Param, raw: object, moment: Moment | None) -> Any:
        """The typed value, or None when `raw` holds nothing; raises Refused."""

    def freeze(self, param: Param, value: Any) -> Frozen:
        frozen: Frozen = value
        return frozen

    def cast(self, param: Param) -> str:
        return self.pg_type

    @abstractmethod
    def schema(self, param: Param) -> dict[str, Any]: ...

    def bounds(self, param: Param, moment: Moment) -> tuple[Any, Any]:
        """`min` and `max` as typed values."""
        low = None if param.min is None else self.parse(param, param.min, moment)
        high = None if param.max is None else self.parse(param, param.max, moment)
        return low, high

    def check(self, param: Param, value: Any, moment: Moment) -> None:
        low, high = self.bounds(param, moment)
        if low is not None and value < low:
            raise Refused(f"Enter {self.freeze(param, low)} or more.")
        if high is not None and value > high:
            raise Refused(f"Enter {self.freeze(param, high)} or less.")


class Text(Kind):
    name, pg_type = "text", "text"

    def parse(self, param: Param, raw: object, moment: Moment | None) -> str | None:
        text = words(raw, "Enter a text.").strip()
        if len(text) > param.max_length:
            raise Refused(f"Use at most {param.max_length:,} characters; these are {len(text):,}.")
        return text or None

    def schema(self, param: Param) -> dict[str, Any]:
        return {"type": "string", "maxLength": param.max_length}


class Int(Kind):
    name, pg_type = "int", "bigint"
    refusal = "Enter a whole number, such as 42."

    def parse(self, param: Param, raw: object, moment: Moment | None) -> int | None:
        if isinstance(raw, bool):
            raise Refused(self.refusal)
        if isinstance(raw, float) and raw.is_integer():
            raw = int(raw)
        if not isinstance(raw, int):
            text = words(raw, self.refusal).strip()
            if not text:
                return None
            if not _INT.fullmatch(text):
                raise Refused(self.refusal)
            raw = int(text)
        if not INT64[0] <= raw <= INT64[1]:
            raise Refused(f"Enter a whole number between {INT64[0]} and {INT64[1]}.")
        return raw

    def schema(self, param: Param) -> dict[str, Any]:
        low = INT64[0] if param.min is None else self.parse(param, param.min, None)
        high = INT64[1] if param.max is None else self.parse(param, param.max, None)
        return {"type": "integer", "minimum": low, "maximum": high}


class Exact(Kind):
    name, pg_type = "decimal", "numeric"
    hint = "A string keeps every digit."
    refusal = "Enter a number, such as 12.50."

    def parse(self, param: Param, raw: object, moment: Moment | None) -> Decimal | None:
        if isinstance(raw, bool) or (isinstance(raw, float) and not math.isfinite(raw)):
            raise Refused(self.refusal)
        if isinstance(raw, int) and abs(raw) >= 10**DECIMAL_DIGITS:
            raise Refused(f"Enter a number of at most {DECIMAL_DIGITS} digits.")
        text = str(raw) if isinstance(raw, (int, float, Decimal)) else words(raw, self.refusal).strip()
        if not text:
            return None
        if len(text) > 2 * DECIMAL_DIGITS or not _DECIMAL.fullmatch(text):
            raise Refused(self.refusal)
        value = Decimal(text)
        if not -DECIMAL_DIGITS < value.adjusted() < DECIMAL_DIGITS:
            raise Refused(f"Enter a number of at most {DECIMAL_DIGITS} digits.")
        return value

    def freeze(self, param: Param, value: Decimal) -> str:
        """The same number always gives the same string: no exponent, no idle zeros, no minus zero."""
        text = f"{value:f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
        return "0" if value == 0 else text

    def schema(self, param: Param) -> dict[str, Any]:
        found: dict[str, Any] = {"type": ["string", "number"]}
        limits = {"minimum": param.min, "maximum": param.max}
        return found | {name: float(limit) for name, limit in limits.items() if limit is not None}


class Bool(Kind):
    name, pg_type = "bool", "boolean"

    def parse(self, param: Param, raw: object, moment: Moment | None) -> bool | None:
        if isinstance(raw, bool):
            return raw
        text = (str(raw) if raw in (0, 1) else words(raw, "Choose yes or no.")).strip().lower()
        if text not in ("", *_TRUE, *_FALSE):
            raise Refused("Choose yes or no.")
        return text in _TRUE if text else None

    def schema(self, param: Param) -> dict[str, Any]:
        return {"type": "boolean"}


class Date(Kind):
    name, pg_type = "date", "date"
    hint = f"A date such as 2026-01-31, or words: {', '.join(EXAMPLES)}."
    refusal = "Enter a date such as 2026-01-31, or words such as today, 7 days ago, last month."

    def parse(self, param: Param, raw: object, moment: Moment | None) -> date | None:
        if isinstance(raw, date) and not isinstance(raw, datetime):
            return raw
        text = words(raw, self.refusal).strip()
        return self._day(text, moment, param.edge) if text else None

    def _day(self, text: str, moment: Moment | None, edge: str) -> date:
        if _DATE.fullmatch(text):
            try:
                return date.fromisoformat(text)
            except ValueError:
                raise Refused(f"There is no day {text} in the calendar.") from None
        try:
            found = span(text, moment.now.date()) if moment and len(text) <= 60 else None
        except OverflowError:
            raise Refused("That day lies outside the calendar.") from None
        if found is None:
            raise Refused(self.refusal)
        return found[edge == "end"]

    def freeze(self, param: Param, value: Any) -> str:
        return str(value.isoformat())

    def bounds(self, param: Param, moment: Moment) -> tuple[Any, Any]:
        """Both ends are within: min "this month" is its first day, max "this month" its last."""
        low, _ = super().bounds(replace(param, max=None, edge="start"), moment)
        _, high = super().bounds(replace(param, min=None, edge="end"), moment)
        return low, high

    def check(self, param: Param, value: Any, moment: Moment) -> None:
        low, high = self.bounds(param, moment)
        if low is not None and value < low:
            raise Refused(f"Enter {self.freeze(param, low)} or later.")
        if high is not None and value > high:
            raise Refused(f"Enter {self.freeze(param, high)} or earlier.")

    def schema(self, param: Param) -> dict[str, Any]:
        return {"type": "string", "examples": ["2026-01-31", "last month"]}


class Datetime(Date):
    name, pg_type = "datetime", "timestamptz"
    hint = (
        f"A time such as 2026-01-31T13:45, with an offset or without, or words: now, {', '.join(EXAMPLES)}."
    )
    refusal = "Enter a date and time such as 2026-01-31T13:45, or words such as now, today, last month."

    def parse(self, param: Param, raw: object, moment: Moment | None) -> datetime | None:
        if isinstance(raw, datetime):
            return self._utc(raw, moment)
        if isinstance(raw, date):
            raw = raw.isoformat()
        text = words(raw, self.refusal).strip()
        if not text:
            return None
        if moment and text.lower() == "now":
            return moment.now.astimezone(UTC)
        if _DATETIME.fullmatch(text):
            return self._utc(self._iso(text), moment)
        at = time.max if param.edge == "end" else time.min
        return self._utc(datetime.combine(self._day(text, moment, param.edge), at), moment)

    def _iso(self, text: str) -> datetime:
        try:
            return datetime.fromisoformat(text.upper())
        except ValueError:
            raise Refused(f"There is no time {text} in the calendar.") from None

    def _utc(self, value: datetime, moment: Moment | None) -> datetime:
        if value.tzinfo is None:
            value = value.replace(tzinfo=moment.tz if moment else UTC)
        try:
            return value.astimezone(UTC)
        except OverflowError:
            raise Refused("That time lies outside the calendar.") from None

    def freeze(self, param: Param, value: Any) -> str:
        return str(value.isoformat()).replace("+00:00", "Z")

    def schema(self, param: Param) -> dict[str, Any]:
        return {"type": "string", "examples": ["2026-01-31T13:45:00Z", "last month"]}


class Enum(Kind):
    name, pg_type = "enum", "text"

    def parse(self, param: Param, raw: object, moment: Moment | None) -> str | None:
        values = [choice.value for choice in param.choices]
        text = words(raw, f"Choose one of: {', '.join(values)}.").strip()
        if text and text not in values:
            raise Refused(f"Choose one of: {', '.join(values)}.")
        return text or None

    def schema(self, param: Param) -> dict[str, Any]:
        return {"type": "string", "enum": [choice.value for choice in param.choices]}


class List(Kind):
    """Many values: a JSON array, or a pasted text with one on each line, or between commas or tabs.

    Doubled ones are left out, the order stays. A long list may be a `Reference` instead.
    """

    name = "list"
    hint = "An array, or one text with the values on lines of their own or between commas."

    def parse(self, param: Param, raw: object, moment: Moment | None) -> Sequence[Any] | Reference | None:
        if isinstance(raw, (list, tuple)):
            return self._limited(param, raw)
        if kept := Reference.of(raw):
            return kept
        refusal = "Enter a list: one value on each line, or commas between them."
        parts = [part for part in _ITEM_END.split(words(raw, refusal)) if part.strip()]
        return self._limited(param, parts) if parts else None

    def items(self, param: Param, parts: Sequence[object]) -> list[Any]:
        """The typed values, in order, doubled ones left out; raises Refused, naming the wrong one."""
        return list(dict.fromkeys(_at_once(param, parts) or self._one_by_one(param, parts)))

    def freeze(self, param: Param, value: Any) -> Frozen:
        return value.frozen() if isinstance(value, Reference) else list(value)

    def _limited(self, param: Param, parts: Sequence[object]) -> list[Any]:
        if len(parts) > LIST_ITEMS:
            raise Refused(f"Enter at most {LIST_ITEMS:,} values; these are {len(parts):,}.")
        return self.items(param, parts)

    def _one_by_one(self, param: Param, parts: Sequence[object]) -> list[Any]:
        read = (self._item(param, number, part) for number, part in enumerate(parts, 1))
        return [item for item in read if item is not None]

    def _item(self, param: Param, number: int, part: object) -> Any:
        if param.items == "text" and type(part) is int and abs(part) <= INT64[1]:
            part = str(part)  # a number in a JSON array of texts means its digits
        try:
            return KINDS[param.items].parse(param, part, None)
        except Refused as refused:
            raise Refused(f"Value {number}: {refused}") from None

    def cast(self, param: Param) -> str:
        return f"{KINDS[param.items].pg_type}[]"

    def bounds(self, param: Param, moment: Moment) -> tuple[Any, Any]:
        """`min` and `max` count the items."""
        count = KINDS["int"]
        low = None if param.min is None else count.parse(param, param.min, moment)
        high = None if param.max is None else count.parse(param, param.max, moment)
        return low, high

    def check(self, param: Param, value: Any, moment: Moment) -> None:
        low, high = self.bounds(param, moment)
        low = max(low or 0, 1 if param.required else 0)
        if len(value) < low:
            raise Refused(f"Enter {low:,} or more values.")
        if high is not None and len(value) > high:
            raise Refused(f"Enter {high:,} or fewer values; these are {len(value):,}.")

    def schema(self, param: Param) -> dict[str, Any]:
        text = {"type": "string", "maxLength": param.max_length}
        return {
            "type": ["array", "string", "object"],
            "required": ["sha256", "count"],
            "items": {"type": "integer"} if param.items == "int" else text,
            "minItems": param.min or 0,
            "maxItems": param.max or LIST_ITEMS,
        }


KINDS: dict[str, Kind] = {
    kind.name: kind for kind in (Text(), Int(), Exact(), Bool(), Date(), Datetime(), Enum(), List())
}


def _at_once(param: Param, parts: Sequence[object]) -> list[Any] | None:
    """What `_one_by_one` gives, five times as fast; None where it must have a closer look."""
    if param.items == "int" and set(map(type, parts)) == {int}:
        return _in_range(cast(list[int], parts))
    if not all(type(part) is str for part in parts):
        return None
    texts = list(filter(None, map(str.strip, cast(Sequence[str], parts))))
    joined = "".join(texts)
    if param.items == "int":
        if not joined.isascii() or "_" in joined or any(len(text) > 40 for text in texts):
            return None
        try:
            return _in_range(list(map(int, texts)))
        except ValueError:
            return None
    if "\0" in joined or max(map(len, texts), default=0) > param.max_length:
        return None
    try:
        joined.encode()
    except UnicodeEncodeError:
        return None
    return texts


def _in_range(numbers: list[int]) -> list[int] | None:
    return numbers if not numbers or INT64[0] <= min(numbers) <= max(numbers) <= INT64[1] else None


def words(raw: object, refusal: str) -> str:
    """`raw` as a text that every database and file can hold; raises Refused."""
    if not isinstance(raw, str):
        raise Refused(refusal)
    if "\0" in raw:
        raise Refused("Take out the NUL character: no database can search for it.")
    try:
        raw.encode()
    except UnicodeEncodeError:
        raise Refused("Take out the half character (a lone surrogate): it is no text.") from None
    return raw
