"""Counting what is done, and saying so not too often. Pure: the clock and the callback are given."""

from __future__ import annotations

from collections.abc import Callable


class Ticker:
    """Calls `report(done, total)` at most once every `interval` seconds, and once more at the end."""

    def __init__(
        self, report: Callable[[int, int | None], None], clock: Callable[[], float], interval: float = 0.5
    ) -> None:
        self.done = 0
        self.total: int | None = None
        self._report, self._clock, self._interval = report, clock, interval
        self._next = clock()

    def tick(self, done: int, total: int | None = None) -> None:
        """`done` of `total` units so far; `total` None leaves what was known.

        A total that is passed was a guess, and is forgotten.
        """
        total = total if total is not None else self.total
        self.done, self.total = done, total if total is not None and done <= total else None
        if self._clock() >= self._next:
            self.flush()

    def flush(self) -> None:
        self._next = self._clock() + self._interval
        self._report(self.done, self.total)
