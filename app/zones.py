"""Time zones by their IANA names: which there are, and which ones a person picks from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, tzinfo
from difflib import get_close_matches
from functools import cache
from itertools import groupby
from zoneinfo import ZoneInfo, available_timezones

from app.errors import InvalidRequest

# Where people live; the other names are there for old programs.
AREAS = (
    *("Africa", "America", "Antarctica", "Arctic", "Asia"),
    *("Atlantic", "Australia", "Europe", "Indian", "Pacific"),
)
# Names that mean whatever a machine is set to.
_NO_ZONES = ("localtime", "posixrules", "Factory")


def exists(name: str) -> bool:
    return name in _names()


def check(name: str) -> str:
    """The name, if there is such a zone; raises InvalidRequest."""
    if exists(name):
        return name
    near = get_close_matches(name[:80], _names(), n=1)
    hint = f" Did you mean {near[0]}?" if near else " Use a name such as Europe/Berlin, or UTC."
    raise InvalidRequest(f"There is no time zone {name[:80]!r}.{hint}")


def zone(name: str) -> tzinfo:
    return UTC if name == "UTC" else ZoneInfo(name)


@cache
def by_area() -> Mapping[str, Sequence[str]]:
    """The zones to pick from: `{"Europe": ["Europe/Amsterdam", ...], ...}`; UTC is not among them."""
    picked = sorted(name for name in _names() if name.startswith(tuple(f"{area}/" for area in AREAS)))
    return {area: list(names) for area, names in groupby(picked, lambda name: name.partition("/")[0])}


@cache
def _names() -> frozenset[str]:
    return frozenset(available_timezones().difference(_NO_ZONES))
