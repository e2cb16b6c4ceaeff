"""Makes `.venv` and installs the locked requirements; `make` runs it when they changed.

Runs before anything is installed, so it needs nothing but Python's own library:
`python3 -I app/dev/install.py`, and behind it what `make` is asked for.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
STAMP = VENV / ".installed"
REQUIREMENTS = (ROOT / "requirements.txt", ROOT / "requirements-dev.txt")
OLDEST = (3, 11)
KEPT_LINES = 30


def main() -> None:
    if sys.version_info < OLDEST:
        found = ".".join(str(part) for part in sys.version_info[:3])
        raise SystemExit(
            f"Waybill needs Python 3.11 or newer, but {sys.executable} is {found}. "
            "Name another one: make run PYTHON=/path/to/python3.11"
        )
    if "run" in sys.argv[1:]:
        refuse_taken_port(os.environ.get("PORT") or "8000")
    make_venv()
    install()
    STAMP.touch()


def refuse_taken_port(port: str) -> None:
    """Nobody waits for an installation to hear of it. What is no port is told by `app.dev.run`."""
    said = taken(int(port)) if port.isdecimal() and 0 < int(port) < 65536 else None
    if said:
        raise SystemExit(f"Waybill is not running. {said}")


def taken(port: int) -> str | None:
    """Why nothing of ours can listen at this port, and what to do; None: it is free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            other = port + 1 if port < 65535 else 8000
            return (
                f"Port {port} is taken by another program ({error.strerror}). Stop that one, or choose "
                f"another port: make run PORT={other}"
            )
    return None


def make_venv() -> None:
    if (VENV / "bin" / "pip").exists():
        return
    print("Making .venv ...", flush=True)
    try:
        venv.EnvBuilder(with_pip=True, clear=True, symlinks=True).create(VENV)
    except subprocess.CalledProcessError as failure:
        said = (failure.output or b"").decode(errors="replace").strip()
        raise SystemExit(
            f"Python could not make {VENV}. On Debian and Ubuntu install its module first: "
            f"apt-get install python3-venv\n{said}"
        ) from None


def install() -> None:
    """Run pip, one counted line instead of its own hundreds; all of them when it fails."""
    wanted = sum(is_pin(line) for path in REQUIREMENTS for line in path.read_text().splitlines())
    command = [
        *(str(VENV / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"),
        *("--require-hashes", "--progress-bar", "off"),
        *(part for path in REQUIREMENTS for part in ("--requirement", str(path))),
    ]
    counter = Counter(f"Installing {wanted} locked packages", wanted)
    last: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as pip:
        assert pip.stdout is not None
        for line in pip.stdout:
            last = [*last, line.rstrip()][-KEPT_LINES:]
            if line.startswith(("Collecting ", "Requirement already satisfied: ")):
                counter.count()
            elif line.startswith("Installing collected packages"):
                counter.say("unpacking")
    counter.end()
    if pip.returncode != 0:
        raise SystemExit(
            "\n".join([*last, "", "pip could not install the requirements; its last lines are above."])
        )


def is_pin(line: str) -> bool:
    return "==" in line and not line.startswith((" ", "#", "-"))


class Counter:
    """`Installing ...: 37 of 92`, rewritten in place on a terminal, every tenth elsewhere."""

    def __init__(self, title: str, total: int) -> None:
        self.title = title
        self.total = total
        self.done = 0
        self.live = sys.stdout.isatty()
        self.say("a minute or two the first time")

    def count(self) -> None:
        self.done += 1
        if self.live or self.done % 20 == 0:
            self.say(f"{min(self.done, self.total)} of {self.total}")

    def say(self, text: str) -> None:
        if self.live:
            print(f"\r\033[K{self.title}: {text} ...", end="", flush=True)
        else:
            print(f"{self.title}: {text} ...", flush=True)

    def end(self) -> None:
        if self.live:
            print("\r\033[K", end="", flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("\nStopped. The next `make` goes on with the installation.") from None
