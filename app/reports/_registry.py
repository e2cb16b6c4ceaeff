"""The registry: every report of the built-in folder and of REPORTS_PATH, and what is wrong with the rest."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from flask import current_app

from app.errors import NotFound, WaybillError
from app.params import did_you_mean
from app.reports._base import Report
from app.reports._checks import Finding, Known, findings
from app.reports._files import Lines, Unreadable, read_python, read_sql
from app.settings import current

log = logging.getLogger(__name__)

# Path, time of change and size of every file.
Stamp = tuple[tuple[str, int, int], ...]

BUILT_IN = Path(__file__).parent
ROLES = ("member", "admin")


@dataclass(frozen=True)
class Problem:
    """One thing to mend, and where: `path:line: message`."""

    path: Path
    line: int
    message: str

    @property
    def key(self) -> str:
        """The report that the file would have made."""
        return self.path.stem

    def __str__(self) -> str:
        here = Path.cwd()
        shown = self.path.relative_to(here) if self.path.is_relative_to(here) else self.path
        return f"{shown}:{self.line}: {self.message}"


class BrokenReports(WaybillError):
    """Some reports cannot be used as they are written."""

    code = "broken_reports"

    def __init__(self, problems: Collection[Problem]) -> None:
        super().__init__("\n".join(["These reports must be mended:", *map(str, problems)]))
        self.problems = tuple(problems)


@dataclass(frozen=True)
class _Loaded:
    """One reading of all folders; replaced as a whole, so that no thread sees half of it."""

    stamp: Stamp | None = None
    reports: dict[str, Report] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


def registry() -> Registry:
    """The reports of the app at work; in development, read again when a file has changed."""
    found: Registry = current_app.extensions["waybill.reports"]
    if current().development and found.refresh():
        for problem in found.problems:
            log.warning("%s", problem)
    return found


class Registry:
    """All good reports by their keys; `problems` tells of the others."""

    def __init__(self, folders: Iterable[Path], known: Known) -> None:
        self._folders = tuple(folders)
        self._known = known
        self._loaded = _Loaded()
        self._reading = threading.Lock()

    @classmethod
    def load(
        cls, reports_path: str = "", *, sources: Collection[str] = ("demo",), roles: Collection[str] = ROLES
    ) -> Registry:
        """Read the built-in reports and those of `reports_path` (folders, joined as in PATH).

        Built-in reports over a source that is not among `sources` are left out.
        """
        folders = [
            Path(folder).expanduser().absolute() for folder in reports_path.split(os.pathsep) if folder
        ]
        registry = cls([BUILT_IN, *folders], Known(sources, roles))
        registry.refresh()
        return registry

    @property
    def problems(self) -> tuple[Problem, ...]:
        return self._loaded.problems

    def check(self) -> None:
        """Raises BrokenReports with all problems, if there is one."""
        if self.problems:
            raise BrokenReports(self.problems)

    def refresh(self) -> bool:
        """Read everything again if a file was added, changed or taken away; True if so. Cheap otherwise."""
        with self._reading:
            stamp = self._stamp()
            if stamp == self._loaded.stamp:
                return False
            self._loaded = self._read(stamp)
            return True

    def get(self, key: str) -> Report:
        """Raises NotFound, with the nearest key."""
        reports = self._loaded.reports
        if key not in reports:
            raise NotFound(f"There is no report {key[:80]!r}.{did_you_mean(key[:80], list(reports))}")
        return reports[key]

    def for_user(self, roles: Collection[str]) -> list[Report]:
        """The reports that somebody with these roles may run."""
        return [report for report in self if report.allows(set(roles))]

    def __iter__(self) -> Iterator[Report]:
        """By group, then title."""
        return iter(sorted(self._loaded.reports.values(), key=lambda report: (report.group, report.title)))

    def __len__(self) -> int:
        return len(self._loaded.reports)

    def __contains__(self, key: object) -> bool:
        return key in self._loaded.reports

    def _stamp(self) -> Stamp:
        found = []
        for path in (path for folder in self._folders for path in _files(folder)):
            with suppress(FileNotFoundError):  # taken away since the folder was listed
                stat = path.stat()
                found.append((str(path), stat.st_mtime_ns, stat.st_size))
        return tuple(found)

    def _read(self, stamp: Stamp) -> _Loaded:
        reports: dict[str, Report] = {}
        problems: list[Problem] = []
        for folder in self._folders:
            if not folder.is_dir():
                problems.append(Problem(folder, 1, "REPORTS_PATH names this folder, but there is none"))
            for path in _files(folder):
                problems += self._add(reports, path)
        return _Loaded(stamp, reports, tuple(problems))

    def _add(self, reports: dict[str, Report], path: Path) -> list[Problem]:
        try:
            report, lines = read_sql(path) if path.suffix == ".sql" else read_python(path)
        except Unreadable as unreadable:
            return [_problem(path, finding, None) for finding in unreadable.findings]
        if path.parent == BUILT_IN and report.source not in self._known.sources:
            return []
        found = [_problem(path, finding, lines) for finding in findings(report, self._known)]
        twin = reports.get(report.key)
        if twin:
            found.append(Problem(path, report.line, f"the key {report.key} is taken by {twin.path}"))
        if not found:
            reports[report.key] = report
        return found


def _files(folder: Path) -> list[Path]:
    """The report files of one folder, in the order of their names; _names are for what reports share."""
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir() if path.suffix in (".py", ".sql") and path.name[0] not in "._"
    )


def _problem(path: Path, finding: Finding, lines: Lines | None) -> Problem:
    line = finding.line or (lines(finding) if lines else 1)
    return Problem(path, line, finding.message)
