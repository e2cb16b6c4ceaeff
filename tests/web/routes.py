"""The app's routes, for tests that are generated from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from apiflask import APIFlask
from werkzeug.routing import Rule

# A value for each kind of placeholder: things that do not exist.
NOBODYS: Mapping[str, str] = {
    "UUIDConverter": "00000000-0000-4000-8000-000000000000",
    "IntegerConverter": "2147483647",
    "UnicodeConverter": "none",
    "PathConverter": "none.css",
}


def rules(app: APIFlask) -> list[Rule]:
    return sorted(app.url_map.iter_rules(), key=lambda rule: (rule.rule, rule.endpoint))


def address(rule: Rule, **values: Any) -> str:
    """The route's address with these values, and nobody's things in the other places."""
    found = rule.rule
    for name, converter in rule._converters.items():
        value = str(values.get(name, NOBODYS[type(converter).__name__]))
        for written in _spellings(name, type(converter).__name__):
            found = found.replace(written, value)
    assert "<" not in found, rule.rule
    return found


def _spellings(name: str, converter: str) -> list[str]:
    kinds = {
        "UUIDConverter": "uuid",
        "IntegerConverter": "int",
        "PathConverter": "path",
        "UnicodeConverter": "string",
    }
    return [f"<{kinds[converter]}:{name}>", f"<{name}>"]
