"""Reading a report from its file: a .sql file with a TOML head, or a .py file with one subclass of Report."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.definitions import Finding, Lines, Unreadable
from app.definitions.files import class_of, fingerprint, frozen, text_of, told, toml_lines, toml_of
from app.params import Param, Params, did_you_mean
from app.reports._base import Column, Lookup, Report, SqlReport
from app.reports._sql import BadSql, tokens

_HEAD = re.compile(r"\s*/\*(?P<toml>.*?)\*/", re.DOTALL)

# The key of a report in SQL is its file's name.
_SQL_OPTIONS = tuple(option for option in Report.OPTIONS if option != "key")
_PARAM_OPTIONS = tuple(name for name in Param.__dataclass_fields__ if name != "name")

_LOOKUP = {"param": str, "column": str}


def read_sql(path: Path) -> tuple[SqlReport, Lines]:
    """The report of a .sql file; raises Unreadable with every wrong option at once."""
    text = text_of(path)
    head = _HEAD.match(text)
    if not head:
        raise Unreadable(Finding("the file must begin with /* the report's options in TOML */", line=1))
    toml, first = head["toml"], text.count("\n", 0, head.start("toml")) + 1
    lines = toml_lines(toml, first, "params")
    options = toml_of(toml, first, "the head")
    wrong = [Finding(f.message, f.option, f.part, lines(f)) for f in _wrong_options(options)]
    report = SqlReport()
    report.path, report.key, report.fingerprint = path, path.stem, fingerprint(text)
    report.sql = text[head.end() :].strip()
    report.line = text.count("\n", 0, head.start("toml")) + 1
    try:
        report.query = tokens(text[head.end() :], text.count("\n", 0, head.end()) + 1)
    except BadSql as problem:
        wrong.append(Finding(str(problem), line=problem.line))
    if wrong:
        raise Unreadable(*wrong)
    _assign(report, options)
    return report, lines


def read_python(path: Path) -> tuple[Report, Lines]:
    """The report of a .py file, freshly run under a private name; raises Unreadable."""
    text = text_of(path)
    found, lines, line = class_of(path, text, Report)
    try:
        report = found()
        report.key = report.key or path.stem
        report.params = Params(report.params)
        report.roles = frozen(report.roles)
        report.columns = frozen(report.columns)
    except Exception as error:
        raise Unreadable(Finding(f"the report cannot be made: {told(error)}", line=line)) from error
    report.path, report.line, report.fingerprint = path, line, fingerprint(text)
    return report, lines


def _wrong_options(options: dict[str, Any]) -> Iterator[Finding]:
    """Names that mean nothing, and values of which nothing can be made."""
    for option in options:
        if option not in _SQL_OPTIONS:
            yield Finding(f"{option} is no option of a report.{did_you_mean(option, _SQL_OPTIONS)}", option)
    columns = options.get("columns", {})
    if not isinstance(columns, dict) or not all(isinstance(text, str) for text in columns.values()):
        yield Finding(
            'columns must be a table: [columns], then lines such as title = "What it is"', "columns"
        )
    lookup = options.get("lookup", {"param": "", "column": ""})
    if not isinstance(lookup, dict) or {name: type(text) for name, text in lookup.items()} != _LOOKUP:
        yield Finding(
            'lookup must be { param = "a list param", column = "a column of the result" }', "lookup"
        )
    params = options.get("params", {})
    if not isinstance(params, dict) or not all(isinstance(param, dict) for param in params.values()):
        yield Finding("params must be tables: [params.since], then its options", "params")
        return
    for name, param in params.items():
        for option in param:
            if option not in _PARAM_OPTIONS:
                hint = did_you_mean(option, _PARAM_OPTIONS)
                yield Finding(f"param {name}: {option} is no option of a param.{hint}", option, name)
        yield from _wrong_types(name, param)


def _wrong_types(name: str, param: dict[str, Any]) -> Iterator[Finding]:
    wanted = {"type": str, "label": str, "help": str, "required": bool, "choices": list, "max_length": int}
    for option, kind in wanted.items():
        if option in param and type(param[option]) is not kind:
            word = {str: "a text", bool: "true or false", list: "a list", int: "a whole number"}[kind]
            yield Finding(f"param {name}: {option} must be {word}", option, name)


def _assign(report: SqlReport, options: dict[str, Any]) -> None:
    for option, value in options.items():
        setattr(report, option, frozen(value))
    report.params = Params(Param(name, **given) for name, given in options.get("params", {}).items())
    lookup = options.get("lookup")
    report.lookup = lookup and Lookup(**lookup)
    columns = options.get("columns")
    report.columns = columns and tuple(Column(name, text) for name, text in columns.items())
