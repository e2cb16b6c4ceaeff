"""Placeholders as reports write them, for other databases than PostgreSQL.

A query comes to a source as psycopg takes it: `%(name)s` or `CAST(%(name)s AS type)` where a value goes,
and `%%` for each percent sign.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

_MARK = re.compile(
    r"%%|(?:CAST\(%\((?P<typed>\w+)\)s AS (?P<type>[^()]+)\)|%\((?P<name>\w+)\)s)"
    r"(?P<asked>(?i:\s+IS\s+(?:NOT\s+)?NULL\b))?"
)


def rendered(sql: str, values: Mapping[str, Any], write: Callable[[str, str], str]) -> str:
    """The query with `write(name, type)` where a value goes; the type is PostgreSQL's, or "".

    Whether a list IS NULL is answered here: elsewhere than in PostgreSQL it is no one value.
    """

    def replaced(mark: re.Match[str]) -> str:
        if mark[0] == "%%":
            return "%"
        name, type, asked = mark["typed"] or mark["name"], mark["type"] or "", mark["asked"] or ""
        if asked and is_list(values[name], type):
            return ("NULL" if values[name] is None else "1") + asked
        return write(name, type) + asked

    return _MARK.sub(replaced, sql)


def is_list(value: object, type: str) -> bool:
    """Whether a placeholder stands for a list, be it that none was given."""
    return isinstance(value, list | tuple) or type.endswith("[]")
