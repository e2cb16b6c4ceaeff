"""Which servers `make run` starts itself: those that the environment does not name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from app.dev.child import Server, stop_together
from app.dev.postgres import Postgres
from app.dev.smtp import Smtp
from app.dev.valkey import Valkey

STOP_SECONDS = 4.0


class Embedded:
    """Servers and a storage folder below `var`, in place of what `environ` lacks."""

    def __init__(self, var: Path, environ: Mapping[str, str]) -> None:
        log = var / "log"
        self.storage = None if environ.get("STORAGE_URL") else var / "storage"
        self.postgres = (
            None if environ.get("DATABASE_URL") else Postgres(var / "postgres", log=log / "postgres.log")
        )
        self.valkey = None if environ.get("REDIS_URL") else Valkey(var / "valkey", log=log / "valkey.log")
        self.smtp = None if environ.get("MAIL_SERVER") else Smtp(var / "mail", log=log / "mail.log")

    @property
    def servers(self) -> list[Server]:
        return [server for server in (self.postgres, self.valkey, self.smtp) if server is not None]

    def environ(self) -> dict[str, str]:
        """The settings that lead to them; PostgreSQL must have been started once."""
        found: dict[str, str] = {}
        if self.storage is not None:
            self.storage.mkdir(parents=True, exist_ok=True)
            found["STORAGE_URL"] = self.storage.as_uri()
        if self.postgres is not None:
            found["DATABASE_URL"] = self.postgres.url
        if self.valkey is not None:
            found["REDIS_URL"] = self.valkey.url
        if self.smtp is not None:
            found["MAIL_SERVER"] = self.smtp.host
            found["MAIL_PORT"] = str(self.smtp.port)
            found["MAILBOX_DIR"] = str(self.smtp.directory)
        return found

    def stop(self) -> None:
        stop_together(self.servers, STOP_SECONDS)
