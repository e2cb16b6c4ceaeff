"""The processes of the Procfile, started with its own commands: what we try is what runs in production."""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from app.dev.child import Child, ChildFailed, listens, stop_together
from app.settings import ROOT

NAMES = ("web", "worker", "bulk", "clock")
READY_SECONDS = 60.0
STOP_SECONDS = 5.0  # then they are killed: a job goes on from its checkpoint at the next start


class Stack:
    """Web, worker, bulk and clock. `environ` is all they get, PATH aside; `logs` takes one file of each."""

    def __init__(self, environ: Mapping[str, str], logs: Path, names: tuple[str, ...] = NAMES) -> None:
        self.environ = {
            **environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
        }
        self.base_url = f"http://127.0.0.1:{environ['PORT']}"
        commands = read_procfile()
        self.processes = {
            name: Child(
                name,
                shell(commands[name]),
                log=logs / f"{name}.log",
                environ=self.environ,
                directory=ROOT,
                patience=6.0,
            )
            for name in names
        }

    def __getitem__(self, name: str) -> Child:
        return self.processes[name]

    def start(self) -> None:
        port = int(self.environ["PORT"])
        if "web" in self.processes and listens(port):
            raise ChildFailed(f"Port {port} is taken by another program. Choose another one with PORT=.")
        for process in self.processes.values():
            process.start()

    def wait_ready(self) -> None:
        """Return once `/readyz` is good; raise ChildFailed with the web process's last lines."""
        self.processes["web"].wait_until(self._ready, READY_SECONDS)

    def restart(self, name: str) -> None:
        """Stop it as a deploy would and start it again; a web process is ready when this returns."""
        self.processes[name].stop()
        self.processes[name].start()
        if name == "web":
            self.wait_ready()

    def revive(self) -> list[str]:
        """Start whatever is dead; the names of those."""
        dead = [name for name, process in self.processes.items() if not process.alive]
        for name in dead:
            self.processes[name].start()
        if "web" in dead:
            self.wait_ready()
        return dead

    def stop(self) -> None:
        stop_together(list(self.processes.values()), STOP_SECONDS)

    def tail(self) -> str:
        return "\n".join(process.tail() for process in self.processes.values())

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.base_url}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def read_procfile(path: Path = ROOT / "Procfile") -> dict[str, str]:
    """Command by name, in the file's order."""
    lines = (line.partition(":") for line in path.read_text().splitlines() if ":" in line)
    return {name.strip(): command.strip() for name, _, command in lines}


def shell(command: str) -> list[str]:
    """As platforms run a Procfile's line; `exec`, so that signals reach the program itself."""
    return ["/bin/sh", "-c", f"exec {command}"]
