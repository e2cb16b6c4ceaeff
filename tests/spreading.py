"""Spreads the tests over processes, `make test`'s `-n auto`: a file at a time, the long ones first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xdist.scheduler import LoadScopeScheduling

PROCESSES = 2
# The options that choose some of the tests.
PARTS = ("file_or_dir", "keyword", "markexpr", "deselect", "lf", "collectonly")
# About how long files take whose tests are few and slow. Seconds.
SLOW: Mapping[str, float] = {
    "tests/chaos/test_exports.py": 110,
    "tests/browser/test_pages.py": 70,
    "tests/browser/test_main_path.py": 60,
    "tests/contracts/test_sources.py": 60,
    "tests/contracts/test_storage.py": 60,
    "tests/web/test_stream.py": 45,
    "tests/contracts/test_formats.py": 35,
    "tests/dev/test_run.py": 30,
    "tests/chaos/test_parts.py": 25,
    "tests/web/test_following.py": 20,
}
SECONDS_A_TEST = 0.1


def pytest_xdist_auto_num_workers(config: Any) -> int:
    """None beside this one for a part of the tests: with few of them it is ready sooner."""
    part = any(config.getoption(name, None) for name in PARTS)
    return 0 if part else PROCESSES


def pytest_xdist_make_scheduler(config: Any, log: Any) -> Spreading:
    return Spreading(config, log)


class Spreading(LoadScopeScheduling):  # type: ignore[misc]
    def _split_scope(self, nodeid: str) -> str:
        return nodeid.partition("::")[0]

    def _assign_work_unit(self, node: Any) -> None:
        self.workqueue.move_to_end(max(self.workqueue, key=self._seconds), last=False)
        super()._assign_work_unit(node)

    def _seconds(self, path: str) -> float:
        return SLOW.get(path, len(self.workqueue[path]) * SECONDS_A_TEST)
