"""One export of 1,000,000 rows, and one import of them into an empty table, by Waybill and by the tools
people use today: seconds and peak memory.

    python -m benchmarks.peers [--rows 1000000] [--only exports|imports]

The peers are installed for this alone, from benchmarks/peers.txt, into an environment of their own.
"""

from __future__ import annotations

import argparse
import csv
import io
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil

from benchmarks import exports, imports
from benchmarks.contenders import EXPORTS, IMPORTS
from benchmarks.stand import MB, services, show

ROWS = 1_000_000
HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure Waybill beside other tools.")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--only", choices=("exports", "imports"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="waybill-peers-") as name:
        folder = Path(name)
        python = _environment(folder / "environment")
        if options.only != "imports":
            show(f"{options.rows:,} rows, 8 columns, to CSV", measure(python, folder, options.rows))
        if options.only != "exports":
            show(f"{options.rows:,} rows, 8 columns, from CSV", measure_imports(python, options.rows))


def measure(python: Path, folder: Path, rows: int) -> list[tuple[str, str, str]]:
    with ExitStack() as stack:
        bench = exports.stand(stack, stack.enter_context(services()), rows, 0)
        bench.post("warm")
        bench.resident()
        ours = bench.post("wide")[0]
        found = [_line("Waybill, POST to succeeded", ours, bench.resident(), base=ours)]
        for name in EXPORTS:
            out = folder / f"{name}.csv"
            found.append(_line(name, *_run(python, name, bench.environ, "demo.wide", out), base=ours))
            with out.open("rb") as file:
                if sum(1 for _ in csv.reader(io.TextIOWrapper(file, "utf-8", newline=""))) != rows + 1:
                    raise SystemExit(f"{name} has not written all rows.")
            out.unlink()
        return found


def measure_imports(python: Path, rows: int) -> list[tuple[str, str, str]]:
    with ExitStack() as stack:
        bench = imports.stand(stack, stack.enter_context(services()))
        bench.wait(bench.ask(bench.file(imports.SMALL)))
        path = bench.file(rows)
        bench.resident()
        ours = bench.wait(bench.ask(path))
        found = [_line("Waybill, request to succeeded", ours, bench.resident(), base=ours)]
        for name in IMPORTS:
            bench.empty()
            found.append(_line(name, *_run(python, name, bench.environ, "bench.wide", path), base=ours))
            row = bench.database.execute("SELECT count(*) FROM bench.wide").fetchone()
            if row != (rows,):
                raise SystemExit(f"{name} has put {row} rows in.")
        return found


def _line(name: str, seconds: float, memory: float, *, base: float) -> tuple[str, str, str]:
    return name, f"{seconds:7.2f} s  {seconds / base:5.1f} x", f"{memory:7,.0f} MB"


def _environment(folder: Path) -> Path:
    """The peers' own virtual environment; its interpreter."""
    print("Installing the peers ...", file=sys.stderr)
    venv.create(folder, with_pip=True)
    python = folder / "bin/python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--requirement", str(HERE / "peers.txt")], check=True)
    return python


def _run(python: Path, name: str, environ: Mapping[str, str], table: str, file: Path) -> tuple[float, float]:
    """Seconds and peak resident MB of one tool."""
    begun = time.monotonic()
    url = environ["DATABASE_URL"]
    process = psutil.Popen([str(python), str(HERE / "contenders.py"), name, url, table, str(file)])
    peak = 0
    while process.poll() is None:
        # Sampled: what the system remembers of a child's peak counts its parent's memory, too.
        peak = max(peak, _resident(process))
        time.sleep(0.02)
    if process.returncode:
        raise SystemExit(f"{name} ended with {process.returncode}.")
    return time.monotonic() - begun, peak / MB


def _resident(process: psutil.Popen) -> int:
    """Bytes of the process and of those it started."""
    total = 0
    for each in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            total += each.memory_info().rss
    return total


if __name__ == "__main__":
    main()
