"""The SMTP server that catches every mail and sends none.

Each mail becomes one `.eml` file, named so that the names sort by time of arrival, with the envelope in
headers of its own on top. For tests of failure the recipient decides: `later@…` is put off (451), `refused@…`
is refused (550).

A program of its own, `python -P app/dev/catcher.py`, that needs nothing of the app: it starts at once.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import signal
from datetime import UTC, datetime
from pathlib import Path

from aiosmtpd.smtp import SMTP, Envelope, Session

SIZE_LIMIT = 25 * 1024 * 1024  # bytes, as most mail servers have it


class Catcher:
    """The handler that aiosmtpd calls."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        name = address.partition("@")[0].lower()
        if name == "later":
            return "451 4.3.0 Try again later"
        if name == "refused":
            return "550 5.1.1 No such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        content = envelope.content
        body = content.encode() if isinstance(content, str) else content or b""
        save(self.directory, envelope.mail_from or "", envelope.rcpt_tos, body)
        return "250 2.0.0 Caught"


def save(directory: Path, sender: str, recipients: list[str], content: bytes) -> Path:
    """Write one mail; a reader of the folder sees it whole or not at all."""
    now = datetime.now(UTC)
    head = (
        f"X-Envelope-From: {sender}\r\n"
        f"X-Envelope-To: {', '.join(recipients)}\r\n"
        f"X-Caught-At: {now.isoformat(timespec='microseconds')}\r\n"
    )
    name = f"{now:%Y%m%dT%H%M%S%f}-{secrets.token_hex(4)}"
    making = directory / f".{name}"
    with making.open("wb") as file:
        file.write(head.encode() + content)
    mail = directory / f"{name}.eml"
    os.replace(making, mail)
    return mail


async def serve(port: int, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    loop = asyncio.get_running_loop()
    catcher = Catcher(directory)
    server = await loop.create_server(
        lambda: SMTP(catcher, hostname="waybill.test", data_size_limit=SIZE_LIMIT, loop=loop),
        "127.0.0.1",
        port,
    )
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="catcher", description="Catch every mail, send none.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--directory", type=Path, required=True)
    options = parser.parse_args()
    asyncio.run(serve(options.port, options.directory))


if __name__ == "__main__":
    main()
