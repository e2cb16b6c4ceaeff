"""What every benchmark stands on: real servers in a folder that goes away, and a table at the end."""

from __future__ import annotations

import secrets
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from app.dev.child import free_port
from app.dev.postgres import Postgres
from app.dev.seaweedfs import SeaweedFS
from app.dev.smtp import Smtp
from app.dev.stack import Stack
from app.dev.valkey import Valkey

MB = 1_000_000


@contextmanager
def services(*, s3: bool = False) -> Iterator[dict[str, str]]:
    """PostgreSQL, Valkey, SMTP and a local storage (or SeaweedFS); yields Waybill's settings for them."""
    with tempfile.TemporaryDirectory(prefix="waybill-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o711)  # PostgreSQL runs as another user when we are root
        (folder / "storage").mkdir()
        postgres, valkey = Postgres(folder / "postgres", durable=False), Valkey(folder / "valkey")
        smtp = Smtp(folder / "mail")
        for service in (postgres, valkey, smtp):
            stack.callback(service.stop)
            service.start()
        port = free_port()
        environ = {
            "ENVIRONMENT": "development",
            "DATABASE_URL": postgres.url,
            "REDIS_URL": valkey.url,
            "STORAGE_URL": (folder / "storage").as_uri(),
            "MAIL_SERVER": smtp.host,
            "MAIL_PORT": str(smtp.port),
            "SECRET_KEY": secrets.token_hex(32),
            "PORT": str(port),
            "PUBLIC_URL": f"http://127.0.0.1:{port}",
            "WEB_CONCURRENCY": "1",
            "REQUEST_RATE": "100000 per minute",
            "LOGS": name,
        }
        if s3:
            from app.storage.s3 import connect

            server = SeaweedFS(folder / "s3")
            stack.callback(server.kill)
            server.start()
            connect(server.environ).create_bucket(Bucket="bench")
            environ |= server.environ | {"STORAGE_URL": "s3://bench/artifacts"}
        yield environ


@contextmanager
def processes(environ: dict[str, str], *names: str) -> Iterator[Stack]:
    """The Procfile's own processes, ready."""
    stack = Stack(environ, Path(environ["LOGS"]), names)
    try:
        stack.start()
        stack.wait_ready()
        yield stack
    finally:
        stack.stop()


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def percentile(values: Sequence[float], percent: int) -> float:
    """The smallest value that so many percent of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def show(title: str, rows: Sequence[tuple[str, str, str]]) -> None:
    """A table of what was measured, what was found, and what is promised."""
    widths = [max(len(row[column]) for row in [*rows, ("", "", "")]) for column in range(3)]
    print(f"\n{title}")
    for row in rows:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
