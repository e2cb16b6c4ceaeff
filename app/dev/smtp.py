"""An embedded SMTP server that catches every mail; what it does with them is in `catcher.py`."""

from __future__ import annotations

import smtplib
import sys
from pathlib import Path

from app.dev.child import Child, Server, free_port

CATCHER = Path(__file__).with_name("catcher.py")


class Smtp(Server):
    """The server as a child process of its own; mails go to `directory`."""

    def __init__(self, directory: Path, port: int | None = None, *, log: Path | None = None) -> None:
        self.directory = directory.resolve()
        self.host = "127.0.0.1"
        port = port or free_port()
        child = Child(
            "The mail catcher",
            [sys.executable, "-P", str(CATCHER), f"--port={port}", f"--directory={self.directory}"],
            log=log or self.directory.parent / "smtp.log",
        )
        super().__init__(child, port)

    @property
    def url(self) -> str:
        return f"smtp://{self.host}:{self.port}"

    def start(self) -> None:
        self.child.start()
        self.child.wait_until(self._answers)

    def _answers(self) -> bool:
        try:
            with smtplib.SMTP(self.host, self.port, timeout=2) as client:
                return client.noop()[0] == 250
        except (OSError, smtplib.SMTPException):
            return False
