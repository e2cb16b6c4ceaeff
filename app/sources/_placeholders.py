"""Placeholders as reports write them, for other databases than PostgreSQL.

A query comes to a source as psycopg takes it: `%(name)s` or `CAST(%(name)s AS type)` where a value goes,
and `%%` for each percent sign.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_MARK = re.compile(r"%%|CAST\(%\((?P<typed>\w+)\)s AS (?P<type>[^()]+)\)|%\((?P<name>\w+)\)s")


def rendered(sql: str, write: Callable[[str, str], str]) -> str:
    """The query with `write(name, type)` where a value goes; the type is PostgreSQL's, or ""."""

    def replaced(mark: re.Match[str]) -> str:
        if mark[0] == "%%":
            return "%"
        return write(mark["typed"] or mark["name"], mark["type"] or "")

    return _MARK.sub(replaced, sql)
