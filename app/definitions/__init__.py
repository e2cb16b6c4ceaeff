"""Definitions that authors write, one a file: found in folders, checked, and told of by file and line.

`Registry` holds those of one family (reports, importers); `app.definitions.files` reads them.
"""

from __future__ import annotations

import logging
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, Self, TypeVar

from app.errors import NotFound, WaybillError
from app.params import did_you_mean
from app.settings import current

log = logging.getLogger(__name__)

ROLES = ("member", "admin")

# Path, time of change and size of every file.
Stamp = tuple[tuple[str, int, int], ...]


class Definition(Protocol):
    """What a family's members have in common."""

    key: str
    title: str
    group: str
    source: str
    line: int
    path: Path

    def allows(self, roles: set[str]) -> bool: ...


D = TypeVar("D", bound=Definition)


class Finding(NamedTuple):
    """One thing that is wrong: with an option, with one of a part's (a param, a column), or at a line."""

    message: str
    option: str | None = None
    part: str | None = None
    line: int | None = None


# Says in which line an option, or one option of a part, is set.
Lines = Callable[[Finding], int]


class Unreadable(Exception):
    """The file defines nothing at all; `findings` say why."""

    def __init__(self, *findings: Finding) -> None:
        super().__init__(findings)
        self.findings = findings


@dataclass(frozen=True)
class Known:
    """The names that a definition may use."""

    sources: Collection[str]
    roles: Collection[str]


@dataclass(frozen=True)
class Problem:
    """One thing to mend, and where: `path:line: message`."""

    path: Path
    line: int
    message: str

    @property
    def key(self) -> str:
        """The definition that the file would have made."""
        return self.path.stem

    def __str__(self) -> str:
        here = Path.cwd()
        shown = self.path.relative_to(here) if self.path.is_relative_to(here) else self.path
        return f"{shown}:{self.line}: {self.message}"


class Broken(WaybillError):
    """Some definitions cannot be used as they are written."""

    code = "broken"
    head: ClassVar[str]

    def __init__(self, problems: Collection[Problem]) -> None:
        super().__init__("\n".join([self.head, *map(str, problems)]))
        self.problems = tuple(problems)


@dataclass(frozen=True)
class _Loaded(Generic[D]):
    """One reading of all folders; replaced as a whole, so that no thread sees half of it."""

    stamp: Stamp | None = None
    members: dict[str, D] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


class Registry(ABC, Generic[D]):
    """All good definitions of a family by their keys; `problems` tells of the others."""

    # What one is called, and the setting that names the authors' folders.
    word: ClassVar[str]
    setting: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    built_in: ClassVar[Path]
    broken: ClassVar[type[Broken]]

    def __init__(self, paths: str, known: Known) -> None:
        """`paths` are folders beside the built-in one, joined as in PATH; nothing is read yet."""
        own = [Path(folder).expanduser().absolute() for folder in paths.split(os.pathsep) if folder]
        self._folders = (self.built_in, *own)
        self._known = known
        self._loaded: _Loaded[D] = _Loaded()
        self._reading = threading.Lock()

    @classmethod
    def load(
        cls, paths: str = "", *, sources: Collection[str] = ("demo",), roles: Collection[str] = ROLES
    ) -> Self:
        """Read the built-in definitions and those of `paths`.

        Built-in ones that need a source which is not among `sources` are left out.
        """
        registry = cls(paths, Known(sources, roles))
        registry.refresh()
        return registry

    @abstractmethod
    def read(self, path: Path) -> tuple[D, Lines]:
        """The definition of one file; raises Unreadable."""

    @abstractmethod
    def findings(self, member: D) -> Iterable[Finding]:
        """Everything that is wrong with it, so that its author mends it in one go."""

    @property
    def problems(self) -> tuple[Problem, ...]:
        return self._loaded.problems

    def check(self) -> None:
        """Raises Broken with all problems, if there is one."""
        if self.problems:
            raise self.broken(self.problems)

    def refresh(self) -> bool:
        """Read everything again if a file was added, changed or taken away; True if so. Cheap otherwise."""
        with self._reading:
            stamp = self._stamp()
            if stamp == self._loaded.stamp:
                return False
            self._loaded = self._read_all(stamp)
            return True

    def at_work(self) -> Self:
        """Itself; in development, read again when a file has changed."""
        if current().development and self.refresh():
            for problem in self.problems:
                log.warning("%s", problem)
        return self

    def get(self, key: str, *, roles: Collection[str] | None = None) -> D:
        """Raises NotFound, with the nearest key; `roles`: of those that somebody with these roles may use."""
        members = self._loaded.members
        if key not in members:
            known = list(members) if roles is None else [member.key for member in self.for_user(roles)]
            raise NotFound(f"There is no {self.word} {key[:80]!r}.{did_you_mean(key[:80], known)}")
        return members[key]

    def for_user(self, roles: Collection[str]) -> list[D]:
        """Those that somebody with these roles may use."""
        return [member for member in self if member.allows(set(roles))]

    def __iter__(self) -> Iterator[D]:
        """By group, then title."""
        return iter(sorted(self._loaded.members.values(), key=lambda member: (member.group, member.title)))

    def __len__(self) -> int:
        return len(self._loaded.members)

    def __contains__(self, key: object) -> bool:
        return key in self._loaded.members

    def _stamp(self) -> Stamp:
        found = []
        for path in (path for folder in self._folders for path in self._files(folder)):
            with suppress(FileNotFoundError):  # taken away since the folder was listed
                stat = path.stat()
                found.append((str(path), stat.st_mtime_ns, stat.st_size))
        return tuple(found)

    def _read_all(self, stamp: Stamp) -> _Loaded[D]:
        members: dict[str, D] = {}
        problems: list[Problem] = []
        for folder in self._folders:
            if not folder.is_dir():
                problems.append(Problem(folder, 1, f"{self.setting} names this folder, but there is none"))
            for path in self._files(folder):
                problems += self._add(members, path)
        return _Loaded(stamp, members, tuple(problems))

    def _add(self, members: dict[str, D], path: Path) -> list[Problem]:
        try:
            member, lines = self.read(path)
        except Unreadable as unreadable:
            return [_problem(path, finding, None) for finding in unreadable.findings]
        if path.parent == self.built_in and member.source not in self._known.sources:
            return []
        found = [_problem(path, finding, lines) for finding in self.findings(member)]
        twin = members.get(member.key)
        if twin:
            found.append(Problem(path, member.line, f"the key {member.key} is taken by {twin.path}"))
        if not found:
            members[member.key] = member
        return found

    def _files(self, folder: Path) -> list[Path]:
        """A folder's definitions, in the order of their names; _names are for what they share."""
        if not folder.is_dir():
            return []
        found = (path for path in folder.iterdir() if path.suffix in self.suffixes)
        return sorted(path for path in found if path.name[0] not in "._")


def name_findings(member: Any, known: Known) -> Iterator[Finding]:
    """Whether there are such a source and such roles."""
    source, roles = str(member.source), sequence(member.roles)
    if source not in known.sources:
        hint = did_you_mean(source, sorted(known.sources))
        yield Finding(f"there is no source {source!r}; set SOURCE_{source.upper()}_URL.{hint}", "source")
    if not roles:
        yield Finding('roles must be a list of names, such as ["member", "admin"]', "roles")
    for role in roles:
        if role not in known.roles:
            hint = did_you_mean(str(role), sorted(known.roles))
            yield Finding(f"there is no role {role!r}.{hint}", "roles")


def misspelt(member: object, options: Collection[str], word: str) -> Iterator[Finding]:
    """Names of a class body that look like options: `titel` would else be passed over in silence."""
    body = vars(type(member))
    unset = [option for option in options if option not in body]
    for name, value in body.items():
        near = get_close_matches(name, unset, n=1, cutoff=0.75)
        if near and not name.startswith("_") and not callable(value) and name not in options:
            yield Finding(f"{name} is no option of {word}. Did you mean {near[0]}?", name)


def sequence(value: object) -> tuple[Any, ...]:
    """The items of what should be a tuple; nothing when it is something else."""
    return value if isinstance(value, tuple) else ()


def _problem(path: Path, finding: Finding, lines: Lines | None) -> Problem:
    line = finding.line or (lines(finding) if lines else 1)
    return Problem(path, line, finding.message)
