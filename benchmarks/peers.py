"""One export of 1,000,000 rows by Waybill and by the tools people use today: seconds and peak memory.

    python -m benchmarks.peers [--rows 1000000] [--rounds 1]

The peers are installed for this alone, from benchmarks/peers.txt, into an environment of their own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import venv
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil

from benchmarks import exports
from benchmarks.contenders import CONTENDERS
from benchmarks.stand import MB, median, services, show

ROWS, ROUNDS = 1_000_000, 1
HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure Waybill beside other tools.")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="waybill-peers-") as folder:
        show(f"{options.rows:,} rows, 8 columns, to CSV", measure(Path(folder), options.rows, options.rounds))


def measure(folder: Path, rows: int, rounds: int) -> list[tuple[str, str, str]]:
    python = _environment(folder / "environment")
    with ExitStack() as stack:
        bench = exports.stand(stack, stack.enter_context(services()), rows, 0)
        bench.post("warm")
        bench.resident()
        ours: list[float] = []
        theirs: dict[str, list[float]] = {name: [] for name in CONTENDERS}
        memory = dict.fromkeys(CONTENDERS, 0.0)
        for _ in range(rounds):
            ours.append(bench.post("wide")[0])
            for name in CONTENDERS:
                seconds, peak = _run(python, name, bench.environ["DATABASE_URL"], folder / f"{name}.csv")
                theirs[name].append(seconds)
                memory[name] = max(memory[name], peak)
        base = median(ours)
        found = [("Waybill, POST to succeeded", f"{base:6.2f} s", f"worker {bench.resident():5,.0f} MB")]
        for name in CONTENDERS:
            seconds = median(theirs[name])
            found.append((name, f"{seconds:6.2f} s  {seconds / base:5.1f} x", f"{memory[name]:12,.0f} MB"))
        return found


def _environment(folder: Path) -> Path:
    """The peers' own virtual environment; its interpreter."""
    print("Installing the peers ...", file=sys.stderr)
    venv.create(folder, with_pip=True)
    python = folder / "bin/python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--requirement", str(HERE / "peers.txt")], check=True)
    return python


def _run(python: Path, name: str, url: str, out: Path) -> tuple[float, float]:
    """Seconds and peak resident MB of one tool; it must have written as many rows as asked."""
    begun = time.monotonic()
    command = [str(python), str(HERE / "contenders.py"), name, url, "demo.wide", str(out)]
    process = psutil.Popen(command)
    peak = 0
    while process.poll() is None:
        # Sampled: what the system remembers of a child's peak counts its parent's memory, too.
        peak = max(peak, _resident(process))
        time.sleep(0.02)
    if process.returncode:
        raise SystemExit(f"{name} ended with {process.returncode}.")
    seconds = time.monotonic() - begun
    out.unlink()
    return seconds, peak / MB


def _resident(process: psutil.Popen) -> int:
    """Bytes of the process and of those it started."""
    total = 0
    for each in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            total += each.memory_info().rss
    return total


if __name__ == "__main__":
    main()
