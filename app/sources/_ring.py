"""Memory shared with another process, which puts record batches there: they are read where they lie.

A slot is handed back when nothing refers to its bytes any more, so whoever keeps a batch need not copy it.
A batch for which no slot is free, or none large enough, comes through the process's standard output.
"""

from __future__ import annotations

import mmap
import os
import subprocess
import tempfile
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from struct import Struct
from typing import Any, Self

import numpy as np
import pyarrow as pa

SLOTS, SLOT = 4, 4 * 1024 * 1024
# Before each batch: its slot, or -1, and its size in bytes.
HEAD = Struct("<qq")


class Ring:
    def __init__(self) -> None:
        self._file = os.fdopen(os.memfd_create("batches")) if hasattr(os, "memfd_create") else _unnamed()
        self.descriptor = self._file.fileno()
        os.ftruncate(self.descriptor, SLOTS * SLOT)
        self._shared = mmap.mmap(self.descriptor, SLOTS * SLOT)
        self._free: deque[int] = deque()

    @property
    def described(self) -> dict[str, int]:
        """What the process must know: the descriptor that it inherits, and what lies there."""
        return {"descriptor": self.descriptor, "slots": SLOTS, "slot": SLOT}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # The memory itself goes with the last batch that lies in it.
        self._file.close()

    def batches(self, child: subprocess.Popen[bytes]) -> Iterator[pa.RecordBatch]:
        """What the process puts there, until it ends; a batch that it did not finish is none."""
        while (laid := self._next(child)) is not None:
            with pa.ipc.open_stream(laid) as stream:
                del laid
                yield from stream
            self._hand_back(child)

    def _next(self, child: subprocess.Popen[bytes]) -> pa.Buffer | None:
        assert child.stdout is not None
        head = child.stdout.read(HEAD.size)
        if len(head) < HEAD.size:
            return None
        slot, size = HEAD.unpack(head)
        if slot >= 0:
            return self._lent(slot, size)
        batch = child.stdout.read(size)
        return pa.py_buffer(batch) if len(batch) == size else None

    def _lent(self, slot: int, size: int) -> pa.Buffer:
        lent: Any = np.frombuffer(self._shared, np.uint8, size, slot * SLOT)
        weakref.finalize(lent, self._free.append, slot).atexit = False
        return pa.py_buffer(lent)

    def _hand_back(self, child: subprocess.Popen[bytes]) -> None:
        assert child.stdin is not None
        free = bytes(self._free.popleft() for _ in range(len(self._free)))
        with suppress(BrokenPipeError):  # it has ended
            if free:
                os.write(child.stdin.fileno(), free)


def _unnamed() -> Any:
    return tempfile.TemporaryFile()
