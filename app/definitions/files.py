"""Reading a definition's file: Python with one class, or TOML; and in which line what stands."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from hashlib import sha256
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, TypeVar

from app.definitions import Finding, Lines, Unreadable

T = TypeVar("T")

_HEADER = re.compile(r"\s*\[+\s*([^\]]+?)\s*\]")
_SETTING = re.compile(r"\s*[\"']?([\w-]+)[\"']?\s*[=.]")
_AT_LINE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


def fingerprint(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def text_of(path: Path) -> str:
    """Raises Unreadable."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable(
            Finding(f"the file is not UTF-8: {error.reason} at byte {error.start}", line=1)
        ) from None
    except OSError as error:
        raise Unreadable(Finding(f"the file cannot be read: {error.strerror}", line=1)) from None


def toml_of(toml: str, first: int, what: str) -> dict[str, Any]:
    """The TOML that begins in line `first` of its file and is called `what`; raises Unreadable."""
    try:
        return tomllib.loads(toml)
    except tomllib.TOMLDecodeError as error:
        at = _AT_LINE.search(str(error))
        line = int(at[1]) if at and at[1] else toml.count("\n") + 1
        message = _AT_LINE.sub("", str(error))
        raise Unreadable(Finding(f"{what} is not good TOML: {message}", line=first + line - 1)) from None


def toml_lines(toml: str, first: int, parts: str) -> Lines:
    """Where each table begins and each option is set; tomllib does not tell. `parts` is the parts' table."""
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
        option, part = finding.option or "", finding.part
        if part is None:
            places = [("", option), (option, "")]
        else:
            places = [(f"{parts}.{part}", option), (f"{parts}.{part}", ""), (parts, part), ("", parts)]
        return next((where[place] for place in places if place in where), first)

    return lines


def class_of(path: Path, text: str, base: type[T]) -> tuple[type[T], Lines, int]:
    """The one subclass of `base` in a .py file, freshly run under a private name, and its first line.

    Raises Unreadable.
    """
    module = _run(path, base.__name__.lower())
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, base) and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        word = base.__name__
        count = f"no subclass of {word}" if not found else f"{len(found)} subclasses of {word}"
        raise Unreadable(Finding(f"the file has {count}; it must have one", line=1))
    lines, line = _python_lines(text, found[0].__name__)
    return found[0], lines, line


def told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class _Uncached(SourceFileLoader):
    """Compiles every time: two edits within a second would else run the first one's bytecode."""

    def get_code(self, fullname: str) -> CodeType:
        code: CodeType = self.source_to_code(self.get_data(self.path), self.path)
        return code


def _run(path: Path, word: str) -> ModuleType:
    name = f"waybill_{word}_{path.stem}_{sha256(str(path).encode()).hexdigest()[:8]}"
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
        raise Unreadable(Finding(f"the file fails when it is loaded: {told(error)}", line=line)) from error
    return module


def _line_in(path: Path, error: BaseException) -> int:
    """The last line of the author's file on the way to the error."""
    line, trace = 1, error.__traceback__
    while trace:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


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
