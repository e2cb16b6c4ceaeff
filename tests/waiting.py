"""How tests wait: for what they need, and long enough for a machine that is busy with something else."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 30.0


def until(condition: Callable[[], object], seconds: float = PATIENCE, *, every: float = 0.02) -> None:
    """Return once `condition()` is true; fail when it has not become so within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"It did not happen within {seconds:.0f} s."
        time.sleep(every)
