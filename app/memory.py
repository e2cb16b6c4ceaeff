"""How the C library keeps the memory of blocks that were used."""

from __future__ import annotations

import ctypes

# glibc's names for what `mallopt` sets.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
# Larger than any block on its way through an export, smaller than the buffers of an upload; in bytes.
LARGE = 4 * 1024 * 1024


def tune() -> None:
    """Blocks find their memory at hand; what is larger goes back to the system when it is done with.

    glibc's own thresholds move with what was freed last: then each block is asked of the system anew, page by
    page, and each thread that ever held a large buffer keeps it. Other C libraries have no such setting.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE)
        mallopt(M_TRIM_THRESHOLD, LARGE)
