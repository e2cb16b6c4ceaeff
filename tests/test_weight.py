"""What every process carries: the heavy libraries are loaded by those who need them, when they do."""

from __future__ import annotations

import subprocess
import sys

SAY = """
import sys
from app import create_app
create_app()
print(*sorted({"boto3", "numpy", "pyarrow"} & sys.modules.keys()))
"""


def test_an_idle_process_carries_no_heavy_library(environ: dict[str, str]) -> None:
    said = subprocess.run(
        [sys.executable, "-c", SAY], env=environ, capture_output=True, text=True, check=True, timeout=100
    )
    assert said.stdout.split() == []
