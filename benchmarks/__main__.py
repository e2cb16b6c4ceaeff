"""Every benchmark, one after the other: `make bench`, or `make bench ARGS="exports streams"` for some."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

NAMES = ("exports", "imports", "formats", "peers", "latency", "streams")


def main() -> None:
    chosen = sys.argv[1:] or NAMES
    unknown = [name for name in chosen if name not in NAMES]
    if unknown:
        raise SystemExit(f"There is no benchmark {unknown[0]!r}. Use {', '.join(NAMES)}.")
    # Each in a process of its own, so that none pays for what another one left in memory.
    root = Path(__file__).parent.parent
    failed = [
        name
        for name in chosen
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], cwd=root).returncode
    ]
    if failed:
        raise SystemExit(f"Failed: {', '.join(failed)}.")


if __name__ == "__main__":
    main()
