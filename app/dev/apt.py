"""Programs that tests need and that come from the system: found, or installed once where we may."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from app.errors import WaybillError

DEBIAN = Path("/etc/debian_version")
# One at a time on this machine: tests run in several processes.
LOCK = Path(tempfile.gettempdir()) / "waybill-apt.lock"


class Missing(WaybillError):
    """A program is not on this machine."""

    code = "program_missing"


def find_or_install(find: Callable[[], Path], package: str, variable: str) -> Path:
    """What `find` finds. If that raises Missing, root on Debian installs the package, and looks again.

    Never if the environment's `variable` names a program: then that one was meant. Raises Missing.
    """
    try:
        return find()
    except Missing as missing:
        if os.geteuid() != 0 or not DEBIAN.exists() or os.environ.get(variable):
            raise
        with _alone():
            return _installed(find, package, variable, type(missing))


def _installed(find: Callable[[], Path], package: str, variable: str, error: type[Missing]) -> Path:
    try:
        # Another process may have done it while we waited.
        return find()
    except Missing:
        print(f"Installing {package} with apt-get (once) ...", file=sys.stderr, flush=True)
    environ = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "--yes", "--no-install-recommends", package]):
        done = subprocess.run(["apt-get", "--quiet", *command], env=environ, stdout=sys.stderr, check=False)
        if done.returncode != 0:
            raise error(f"`apt-get {' '.join(command)}` failed; set {variable} to the program's path.")
    return find()


@contextmanager
def _alone() -> Iterator[None]:
    with LOCK.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
