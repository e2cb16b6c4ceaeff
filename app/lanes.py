"""Lanes: of a worker's threads one is kept free for small exports, so that none waits behind large ones."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Lane:
    """At most `width` large exports at a time in this process; None: as many as there are threads."""

    def __init__(self) -> None:
        self.width: int | None = None
        self._taken = 0
        self._lock = threading.Lock()

    @property
    def full(self) -> bool:
        return self.width is not None and self._taken >= self.width

    def enter(self) -> bool:
        """Take a place, if there is one."""
        with self._lock:
            if self.full:
                return False
            self._taken += 1
            return True

    def leave(self) -> None:
        with self._lock:
            self._taken -= 1

    @contextmanager
    def inside(self) -> Iterator[bool]:
        """Whether there was a place; it is given back at the end."""
        entered = self.enter()
        try:
            yield entered
        finally:
            if entered:
                self.leave()


# This process's own.
large = Lane()
