"""How the C library keeps the memory of blocks that were used.

glibc's own thresholds move with what was freed last: then each block is asked of the system anew, page by
page, which takes longer than filling it. Other C libraries have no such settings, and nothing is done there.
"""

from __future__ import annotations

import ctypes
from typing import Any

# glibc's names for what `mallopt` sets.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
# Larger than any block on its way through an export or an import, in bytes. glibc takes 32 MiB at most.
LARGE = 24 * 1024 * 1024


def tune() -> None:
    """While a job is at work, its blocks find their memory at hand."""
    if mallopt := _of_glibc("mallopt"):
        # One store for all threads: what one of them lets go the next one takes, and all can be given back.
        mallopt(M_ARENA_MAX, 1)
        mallopt(M_MMAP_THRESHOLD, LARGE)
        mallopt(M_TRIM_THRESHOLD, LARGE)


def give_back() -> None:
    """Between jobs: what no block needs goes back to the system, of all threads."""
    if malloc_trim := _of_glibc("malloc_trim"):
        malloc_trim(0)


def _of_glibc(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None)
