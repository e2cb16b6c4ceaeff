"""One child process that never outlives us.

A child gets a session of its own, so that Ctrl-C in the terminal reaches only the parent, which then stops
its children in order. Where the kernel can do it (Linux), the child is also told when the parent was killed.
Start children from the main thread: the kernel watches the thread that forked.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path

from app.errors import WaybillError

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
# Below those that kernels give to outgoing connections: from 32768 (Linux) or 49152.
PORTS = range(20_000, 32_000)
# Each process goes round from a place of its own, so that no port is given out twice within minutes.
_turns = count(os.getpid() * 1009)


class ChildFailed(WaybillError):
    """A child process did not come up, or went away."""

    code = "child_failed"


class Child:
    """A command, its log file and its farewell.

    `farewell` is the signal that asks it to stop; `patience` the seconds it has before it is killed.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        environ: Mapping[str, str] | None = None,
        directory: Path | None = None,
        user: str | None = None,
        farewell: signal.Signals = signal.SIGTERM,
        patience: float = 5.0,
    ) -> None:
        self.name = name
        self.command = list(command)
        self.log = log
        self.environ = environ
        self.directory = directory
        self.user = user
        self.farewell = farewell
        self.patience = patience
        self._popen: subprocess.Popen[bytes] | None = None
        self._log_offset = 0
        self._asked = False

    @property
    def pid(self) -> int:
        if self._popen is None:
            raise ChildFailed(f"{self.name} was not started yet, so it has no process id.")
        return self._popen.pid

    @property
    def alive(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    @property
    def exit_status(self) -> int | None:
        """None while it lives; negative: the number of the signal that ended it."""
        return None if self._popen is None else self._popen.poll()

    def start(self) -> None:
        if self.alive:
            raise ChildFailed(f"{self.name} is running already (process {self.pid}).")
        self.kill()  # what an earlier life of it may have left of its group
        self._asked = False
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._log_offset = log.tell()
            self._popen = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=None if self.environ is None else dict(self.environ),
                cwd=self.directory,
                user=self.user,
                group=self.user,
                extra_groups=None if self.user is None else [],
                start_new_session=True,
                preexec_fn=_follow_parent(self.farewell),
            )

    def wait_until(self, answers: Callable[[], bool], seconds: float = 30.0) -> None:
        """Return once `answers()` is true; raise `ChildFailed` when the child dies or the time is over."""
        deadline = time.monotonic() + seconds
        while not answers():
            if not self.alive:
                raise ChildFailed(
                    f"{self.name} {_how_it_ended(self.exit_status)} while starting.\n{self.tail()}"
                )
            if time.monotonic() > deadline:
                raise ChildFailed(f"{self.name} did not answer within {seconds:.0f} s.\n{self.tail()}")
            time.sleep(0.03)

    def wait(self, seconds: float) -> None:
        """Return when it ended well; raise ChildFailed when it did not, or not in time."""
        if self._popen is None:
            raise ChildFailed(f"{self.name} was not started yet.")
        try:
            self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            raise ChildFailed(f"{self.name} was not done within {seconds:.0f} s.\n{self.tail()}") from None
        if self._popen.returncode != 0:
            raise ChildFailed(f"{self.name} {self.how_it_ended()}.\n{self.tail()}")

    def ask_to_stop(self) -> None:
        """Send the farewell, once, and return: many programs take the second for "at once"."""
        if self.alive and not self._asked:
            self._asked = True
            with suppress(ProcessLookupError):
                os.kill(self.pid, self.farewell)

    def stop(self, patience: float | None = None) -> None:
        """Ask, wait, and kill what is left of its process group."""
        if self._popen is None:
            return
        self.ask_to_stop()
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(self.patience if patience is None else patience)
        self.kill()

    def kill(self) -> None:
        """SIGKILL to the child and all of its process group; returns when the child is gone."""
        if self._popen is None:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()

    def tail(self, lines: int = 15) -> str:
        """The last lines it wrote since its last start, with the log's path."""
        with suppress(FileNotFoundError), self.log.open("rb") as log:
            log.seek(self._log_offset)
            text = log.read().decode(errors="replace").splitlines()[-lines:]
            return "\n".join([f"Last lines of {self.log}:", *(f"  {line}" for line in text)])
        return f"{self.log} does not exist."

    def how_it_ended(self) -> str:
        """A verb phrase: "ended with status 1", "was killed by SIGKILL", "is still running"."""
        return _how_it_ended(self.exit_status)


class Server(ABC):
    """An embedded server: one child process, and a URL to reach it at."""

    def __init__(self, child: Child, port: int) -> None:
        self.child = child
        self.port = port

    @property
    def name(self) -> str:
        return self.child.name

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def alive(self) -> bool:
        return self.child.alive

    @property
    @abstractmethod
    def url(self) -> str: ...

    @abstractmethod
    def start(self) -> None:
        """Return once it answers; raise ChildFailed with its last lines when it does not."""

    def ask_to_stop(self) -> None:
        self.child.ask_to_stop()

    def stop(self, patience: float | None = None) -> None:
        """Cleanly, or by force after `patience` seconds."""
        self.child.stop(patience)

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        self.child.kill()

    def tail(self, lines: int = 15) -> str:
        return self.child.tail(lines)


def stop_together(processes: Sequence[Child | Server], seconds: float) -> None:
    """Ask all first, then wait: together they take no longer than `seconds`, then they are killed."""
    deadline = time.monotonic() + seconds
    for process in processes:
        process.ask_to_stop()
    for process in processes:
        process.stop(max(deadline - time.monotonic(), 0.1))


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on, and that nobody is given by chance.

    Those that the kernel gives (port 0) may belong to any connection before a server comes to bind them.
    """
    while True:
        port = PORTS[next(_turns) % len(PORTS)]
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def listens(port: int, host: str = "127.0.0.1") -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


def _follow_parent(farewell: signal.Signals) -> Callable[[], None] | None:
    """What the child does between fork and exec so that it gets `farewell` when the parent dies."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def follow() -> None:
        # After the change of user (subprocess calls this last): setuid would clear it again.
        prctl(PR_SET_PDEATHSIG, int(farewell))
        if os.getppid() != parent:  # it died before we could ask to be told
            os._exit(1)

    return follow


def _how_it_ended(status: int | None) -> str:
    if status is None:
        return "is still running"
    if status >= 0:
        return f"ended with status {status}"
    return f"was killed by {signal.Signals(-status).name}"
