"""Reading SQL just well enough to find its placeholders and to see that it only reads. Pure.

The check is a help for authors, not the guard: what keeps a report from writing is the read-only
transaction it runs in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

# Longest first; what is not named here is one sign of its own. E'' strings know the backslash, and
# go on after a line break as E'' strings. Names between backticks are MySQL's and SQLite's.
_TOKEN = re.compile(
    r"""
      (?P<space>\s+)
    | (?P<comment>--[^\r\n]*)
    | (?P<block>/\*)
    | (?P<string>[eE]'(?:[^'\\]|\\.|'')*'(?:[ \t\f]*[\r\n]\s*'(?:[^'\\]|\\.|'')*')*
        |'(?:[^']|'')*'
        |\$(?P<tag>(?:[^\W\d]\w*)?)\$.*?\$(?P=tag)\$)
    | (?P<identifier>"(?:[^"]|"")*"|`(?:[^`]|``)*`)
    | (?P<word>[^\W\d][\w$]*)
    | (?P<number>[0-9][\w.]*)
    | (?P<position>\$[0-9]+)
    | (?P<colons>::|:=)
    | :(?P<placeholder>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<sign>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE = re.compile(r"/\*|\*/")
_READS = ("select", "with", "values", "table")
_UNCLOSED = {"'": "string", '"': "quoted name", "$": "dollar-quoted string"}


class Token(NamedTuple):
    kind: str
    text: str
    line: int


class BadSql(ValueError):
    """The text is no SQL that a report may run; `line` counts from the first line given to `tokens`."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


def tokens(sql: str, line: int = 1) -> list[Token]:
    """All of `sql` in tokens; a placeholder's text is its name. Raises BadSql for what never ends."""
    found = []
    at = 0
    while match := _TOKEN.match(sql, at):
        kind = match.lastgroup or ""
        end = _block_end(sql, match.end(), line) if kind == "block" else match.end()
        text = match["placeholder"] if kind == "placeholder" else sql[at:end]
        if kind == "sign" and text in _UNCLOSED:
            raise BadSql(f"this {_UNCLOSED[text]} never ends", line)
        found.append(Token("comment" if kind == "block" else kind, text, line))
        line += sql.count("\n", at, end)
        at = end
    return found


def placeholders(found: Sequence[Token]) -> dict[str, int]:
    """The names used as :name, each with its first line."""
    names: dict[str, int] = {}
    for token in found:
        if token.kind == "placeholder":
            names.setdefault(token.text, token.line)
    return names


def unsafe(found: Sequence[Token]) -> Iterator[BadSql]:
    """Everything that keeps the statement from being one query that only reads."""
    line = found[0].line if found else 1
    code = [token for token in found if token.kind not in ("space", "comment")]
    while code and code[-1].text == ";":
        code.pop()
    if not code:
        yield BadSql("there is no query", line)
        return
    first = next((token for token in code if token.text != "("), code[0])
    if first.text.lower() not in _READS:
        yield BadSql(
            f"the query begins with {first.text[:40]}, but a report only reads: "
            "begin with SELECT, WITH, VALUES or TABLE",
            first.line,
        )
    nothing = Token("", "", line)
    for before, token, after in zip([nothing, *code], code, [*code[1:], nothing], strict=False):
        reason = _reason(before, token, after)
        if reason:
            yield BadSql(reason, token.line)


def ordered_by(found: Sequence[Token]) -> str | None:
    """The column that the query's rows ascend by first; "" for any other order, None for no order at all."""
    code = [token for token in found if token.kind not in ("space", "comment")]
    depth, order = 0, None
    for at, token in enumerate(code):
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        following = code[at + 1].text.lower() if at + 1 < len(code) else ""
        if depth == 0 and token.kind == "word" and (token.text.lower(), following) == ("order", "by"):
            order = at + 2
    if order is None:
        return None
    key = code[order : order + 1]
    if [token.text for token in code[order + 1 : order + 2]] == ["."]:
        key = code[order + 2 : order + 3]
        order += 2
    after = code[order + 1].text.lower() if order + 1 < len(code) else ";"
    plain = key and key[0].kind in ("word", "identifier") and after in (",", ";", "asc", "limit")
    return key[0].text.strip('"`') if plain and after != "limit" else ""


def render(found: Sequence[Token], typed: Callable[[str], str]) -> str:
    """The query for psycopg: `typed(name)` stands where :name stood, % is doubled, comments are gone.

    Comments leave their line breaks behind, so that the database's line numbers stay right; without
    them the query may be put in parentheses whatever its last line is.
    """
    return "".join(_rendered(token, typed) for token in found).rstrip(" \t\r\n;")


def _block_end(sql: str, at: int, line: int) -> int:
    depth = 1
    for edge in _COMMENT_EDGE.finditer(sql, at):
        depth += 1 if edge[0] == "/*" else -1
        if not depth:
            return edge.end()
    raise BadSql("this comment never ends", line)


def _reason(before: Token, token: Token, after: Token) -> str | None:
    word = token.text.lower()
    if token.text == ";":
        return "there is more than one statement; keep one query a file"
    if token.kind == "position":
        return f"{token.text} has no meaning here; write a param as :name"
    if token.kind != "word" or before.text == "." or before.text.lower() == "as":
        return None
    if word == "into":
        return "INTO writes; a report only reads"
    if word == "for" and after.text.lower() in ("update", "share", "no", "key"):
        return f"FOR {after.text.upper()} locks rows; a report only reads"
    opens = before.text in ("(", ")") and after.kind in ("word", "identifier")
    if (word in ("insert", "update", "delete", "merge") and opens) or (
        word == "delete" and after.text.lower() == "from"
    ):
        return f'{word.upper()} writes; a report only reads (a column of that name is written "{token.text}")'
    return None


def _rendered(token: Token, typed: Callable[[str], str]) -> str:
    if token.kind == "placeholder":
        return typed(token.text)
    if token.kind == "comment":
        return "\n" * token.text.count("\n") or " "
    return token.text.replace("%", "%%")
