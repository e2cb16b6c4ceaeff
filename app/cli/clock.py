"""flask sweep and flask clock: what must happen though nobody asks for it."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType

import click
from flask.cli import with_appcontext

from app import sweep as sweeping


@click.command("sweep")
@with_appcontext
def sweep() -> None:
    """Do one pass of the clock now: dispatch again, deliver, expire, clean."""
    swept = sweeping.sweep()
    click.echo(f"Swept: {swept}")
    if swept.failures:
        raise click.ClickException(f"{len(swept.failures)} of the steps failed.")


@click.command("clock")
@with_appcontext
def clock() -> None:
    """Sweep every few seconds until SIGTERM or Ctrl-C. Any number of clocks may run at once."""
    logging.getLogger("app").setLevel(logging.INFO)  # what was swept is worth a line here
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    sweeping.clock(stop)
