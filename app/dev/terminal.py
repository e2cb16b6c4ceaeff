"""What `make run` says while it works: one line a step, ticking on a terminal, plain elsewhere."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

COLOURS = {"good": "32", "bad": "31", "wait": "33", "quiet": "2", "strong": "1"}
SERIOUS = re.compile(r"\b(WARNING|ERROR|CRITICAL)\b")
PROGRAM_COLOURS = ("36", "35", "34", "33")
TITLE_WIDTH = 30
TICK = 0.2  # seconds


class Terminal:
    """Writes to `out`; colours and ticking only where that is a terminal (and NO_COLOR is not set)."""

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self.out = out
        self.live = out.isatty()
        self.colourful = self.live and not os.environ.get("NO_COLOR")

    def say(self, text: str = "") -> None:
        with suppress(OSError):  # a terminal that was closed is no reason not to stop everything in order
            print(text, file=self.out, flush=True)

    def paint(self, text: str, colour: str) -> str:
        code = COLOURS.get(colour, colour)
        return f"\033[{code}m{text}\033[0m" if self.colourful else text

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Show the step with its seconds while it works, and a sign with its result at the end."""
        step = Step(self, title)
        step.begin()
        try:
            yield step
        except BaseException:
            step.end(self.paint("failed", "bad"))
            raise
        step.end(step.result)


class Step:
    def __init__(self, terminal: Terminal, title: str) -> None:
        self.terminal = terminal
        self.title = title
        self.result = ""
        self._note = ""
        self._began = time.monotonic()
        self._ended = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)

    def begin(self) -> None:
        if self.terminal.live:
            self._ticker.start()
        else:
            self.terminal.say(f"  {self.title} ...")

    def note(self, text: str) -> None:
        """What the step is at, while it works."""
        self._note = text
        if not self.terminal.live:
            self.terminal.say(f"    {text}")

    def end(self, result: str) -> None:
        self._ended.set()
        seconds = f"{time.monotonic() - self._began:5.1f} s"
        if self.terminal.live:
            self._ticker.join()
            self.terminal.out.write("\r\033[K")
        line = f"  {self.title:<{TITLE_WIDTH}} {self.terminal.paint(seconds, 'quiet')}  {result}"
        self.terminal.say(line.rstrip())

    def _tick(self) -> None:
        while not self._ended.is_set():
            seconds = f"{time.monotonic() - self._began:5.1f} s"
            self.terminal.out.write(f"\r\033[K  {self.title:<{TITLE_WIDTH}} {seconds}  {self._note}")
            self.terminal.out.flush()
            self._ended.wait(TICK)


class LogWatch:
    """Follows the log files of the processes and gives what a person should see: warnings and worse."""

    def __init__(self, logs: dict[str, Path]) -> None:
        self.logs = logs
        self._offsets = {name: _size(path) for name, path in logs.items()}
        self._within: set[str] = set()

    def serious(self) -> Iterator[tuple[str, str]]:
        """(name, line) of each new line that warns, with the lines of its traceback."""
        for name, path in self.logs.items():
            for line in self._new_lines(name, path):
                if SERIOUS.search(line):
                    self._within.add(name)
                elif not line.startswith((" ", "Traceback")) and not _names_an_error(line):
                    self._within.discard(name)
                if name in self._within:
                    yield name, line

    def _new_lines(self, name: str, path: Path) -> list[str]:
        if _size(path) <= self._offsets[name]:
            return []
        with path.open("rb") as log:
            log.seek(self._offsets[name])
            whole, newline, _ = log.read().rpartition(b"\n")
        self._offsets[name] += len(whole) + len(newline)
        return whole.decode(errors="replace").splitlines()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _names_an_error(line: str) -> bool:
    """The last line of a traceback: `package.module.SomeError: what happened`."""
    return re.match(r"[\w.]+(Error|Exception|Failed|Down)\b", line) is not None
