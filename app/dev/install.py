"""Makes `.venv` and installs the locked requirements; `make` runs it when they changed.

Runs before anything is installed, so it needs nothing but Python's own library:
`python3 -I app/dev/install.py`.
"""

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
    make_venv()
    install()
    STAMP.touch()


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
