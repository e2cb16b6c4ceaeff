"""Reading a report from its file: a .sql file with a TOML head, or a .py file with one subclass of Report."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from hashlib import sha256
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from app.params import Param, Params, did_you_mean
from app.reports._base import Column, Lookup, Report, SqlReport
from app.reports._checks import Finding
from app.reports._sql import BadSql, tokens

_HEAD = re.compile(r"\s*/\*(?P<toml>.*?)\*/", re.DOTALL)
_HEADER = re.compile(r"\s*\[+\s*([^\]]+?)\s*\]")
_SETTING = re.compile(r"\s*[\"']?([\w-]+)[\"']?\s*[=.]")
_AT_LINE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")

# The key of a report in SQL is its file's name.
_SQL_OPTIONS = tuple(option for option in Report.OPTIONS if option != "key")
_PARAM_OPTIONS = tuple(name for name in Param.__dataclass_fields__ if name != "name")

_LOOKUP = {"param": str, "column": str}

# Says in which line an option, or one option of a param, is set.
Lines = Callable[[Finding], int]


class Unreadable(Exception):
    """The file makes no report at all; `findings` say why."""

    def __init__(self, *findings: Finding) -> None:
        super().__init__(findings)
        self.findings = findings


def read_sql(path: Path) -> tuple[SqlReport, Lines]:
    """The report of a .sql file; raises Unreadable with every wrong option at once."""
    text = _text(path)
    head = _HEAD.match(text)
    if not head:
        raise Unreadable(Finding("the file must begin with /* the report's options in TOML */", line=1))
    toml, first = head["toml"], text.count("\n", 0, head.start("toml")) + 1
    lines = _toml_lines(toml, first)
    options = _toml(toml, first)
    wrong = [Finding(f.message, f.option, f.param, lines(f)) for f in _wrong_options(options)]
    report = SqlReport()
    report.path, report.key, report.fingerprint = path, path.stem, _fingerprint(text)
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
    text = _text(path)
    module = _run(path)
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Report) and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        count = "no subclass of Report" if not found else f"{len(found)} subclasses of Report"
        raise Unreadable(Finding(f"the file has {count}; it must have one", line=1))
    lines, line = _python_lines(text, found[0].__name__)
    try:
        report = found[0]()
        report.key = report.key or path.stem
        report.params = Params(report.params)
        report.roles = _frozen(report.roles)
        report.columns = _frozen(report.columns)
    except Exception as error:
        raise Unreadable(Finding(f"the report cannot be made: {_told(error)}", line=line)) from error
    report.path, report.line, report.fingerprint = path, line, _fingerprint(text)
    return report, lines


def _fingerprint(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable(
            Finding(f"the file is not UTF-8: {error.reason} at byte {error.start}", line=1)
        ) from None
    except OSError as error:
        raise Unreadable(Finding(f"the file cannot be read: {error.strerror}", line=1)) from None


def _toml(toml: str, first: int) -> dict[str, Any]:
    try:
        return tomllib.loads(toml)
    except tomllib.TOMLDecodeError as error:
        at = _AT_LINE.search(str(error))
        line = int(at[1]) if at and at[1] else toml.count("\n") + 1
        message = _AT_LINE.sub("", str(error))
        raise Unreadable(Finding(f"the head is not good TOML: {message}", line=first + line - 1)) from None


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
        setattr(report, option, _frozen(value))
    report.params = Params(Param(name, **given) for name, given in options.get("params", {}).items())
    lookup = options.get("lookup")
    report.lookup = lookup and Lookup(**lookup)
    columns = options.get("columns")
    report.columns = columns and tuple(Column(name, text) for name, text in columns.items())


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _toml_lines(toml: str, first: int) -> Lines:
    """Where each table begins and each option is set; tomllib does not tell."""
    where: dict[tuple[str, str], int] = {}
    table = ""
    for number, line in enumerate(toml.split("\n"), first):
        if header := _HEADER.match(line):
            table = header[1].replace('"', "").replace(" ", "")
            where.setdefault((table, ""), number)
            where.setdefault((table.partition(".")[0], ""), number)
        elif setting := _SETTING.match(line):
            where.setdefault((table, setting[1]), number)

    def lines(finding: Finding) -> int:
        option, param = finding.option or "", finding.param
        if param is None:
            places = [("", option), (option, "")]
        else:
            places = [(f"params.{param}", option), (f"params.{param}", ""), ("params", param), ("", "params")]
        return next((where[place] for place in places if place in where), first)

    return lines


class _Uncached(SourceFileLoader):
    """Compiles every time: two edits within a second would else run the first one's bytecode."""

    def get_code(self, fullname: str) -> CodeType:
        code: CodeType = self.source_to_code(self.get_data(self.path), self.path)
        return code


def _run(path: Path) -> ModuleType:
    name = f"waybill_report_{path.stem}_{sha256(str(path).encode()).hexdigest()[:8]}"
    spec = spec_from_loader(name, _Uncached(name, str(path)))
    if spec is None or spec.loader is None:
        raise Unreadable(Finding("the file cannot be loaded as Python", line=1))
    module = module_from_spec(spec)
    # Dataclasses and the like look their module up by name.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise Unreadable(Finding(f"not good Python: {error.msg}", line=error.lineno or 1)) from error
    except Exception as error:
        line = _line_in(path, error)
        raise Unreadable(Finding(f"the file fails when it is loaded: {_told(error)}", line=line)) from error
    return module


def _line_in(path: Path, error: BaseException) -> int:
    """The last line of the author's file on the way to the error."""
    line, trace = 1, error.__traceback__
    while trace:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _python_lines(text: str, class_name: str) -> tuple[Lines, int]:
    body = next(n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.ClassDef) and n.name == class_name)
    where: dict[str, int] = {}
    for node in body.body:
        for target in node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]:
            if isinstance(target, ast.Name):
                where[target.id] = node.lineno

    def lines(finding: Finding) -> int:
        return where.get(finding.option or "", body.lineno)

    return lines, body.lineno
