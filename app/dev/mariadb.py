"""A MariaDB for tests: the machine's own program, in a folder of ours. As root on Debian it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pymysql

from app.dev import apt
from app.dev.child import Child, Server, free_port

SERVERS = ("mariadbd", "mysqld")
# Not on everybody's PATH.
SYSTEM = "/usr/sbin:/usr/local/sbin:/usr/libexec"
INSTALLERS = ("mariadb-install-db", "mysql_install_db")


class NoMariaDb(apt.Missing):
    """There is no MariaDB on this machine."""

    code = "no_mariadb"


def find() -> Path:
    """The server's program: `MARIADBD`, then PATH; raises NoMariaDb."""
    named = os.environ.get("MARIADBD")
    found = [shutil.which(name, path=_path()) for name in ([named] if named else SERVERS)]
    first = next((path for path in found if path), None)
    if first is None:
        raise NoMariaDb(
            "The tests of the MySQL source need MariaDB and found none. Set MARIADBD to the path of "
            "mariadbd, put it on PATH, or install one: `apt-get install mariadb-server`."
        )
    return Path(first)


def find_or_install() -> Path:
    """As `find`, but as root on Debian it installs the distribution's own when there is none."""
    return apt.find_or_install(find, "mariadb-server", "MARIADBD")


class MariaDb(Server):
    """One server in `directory`, listening on 127.0.0.1; its database is `waybill`, of the account `root`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()
        self._data = self.directory / "data"
        port = free_port()
        child = Child(
            "MariaDB",
            [
                str(find_or_install()),
                "--no-defaults",
                f"--datadir={self._data}",
                f"--port={port}",
                "--bind-address=127.0.0.1",
                f"--socket={self.directory / 'socket'}",
                f"--pid-file={self.directory / 'pid'}",
                "--skip-log-bin",
                "--innodb-flush-log-at-trx-commit=0",
                "--innodb-buffer-pool-size=64M",
                "--performance-schema=OFF",
                *(["--user=root"] if os.geteuid() == 0 else []),
            ],
            log=self.directory / "mariadb.log",
            directory=self.directory,
        )
        super().__init__(child, port)

    @property
    def url(self) -> str:
        return f"mysql://root@127.0.0.1:{self.port}/waybill"

    def connect(self) -> pymysql.Connection[pymysql.cursors.Cursor]:
        return pymysql.connect(host="127.0.0.1", port=self.port, user="root", autocommit=True)

    def start(self) -> None:
        if not self._data.exists():
            self._initialize()
        self.child.start()
        self.child.wait_until(self._answers)
        with self.connect() as conn, conn.cursor() as cursor:
            cursor.execute("CREATE DATABASE IF NOT EXISTS waybill CHARACTER SET utf8mb4")

    def _initialize(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        found = next((path for name in INSTALLERS if (path := shutil.which(name, path=_path()))), None)
        if found is None:
            raise NoMariaDb("There is a mariadbd, but no mariadb-install-db beside it; install both.")
        command = [
            found,
            "--no-defaults",
            f"--datadir={self._data}",
            "--auth-root-authentication-method=normal",
        ]
        if os.geteuid() == 0:
            command.append("--user=root")
        made = subprocess.run(
            [*command, "--skip-test-db"],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if made.returncode != 0:
            raise NoMariaDb(f"{found} failed: {(made.stderr or made.stdout)[-500:]}")

    def _answers(self) -> bool:
        try:
            with self.connect():
                return True
        except pymysql.Error:
            return False


def _path() -> str:
    return os.pathsep.join(filter(None, [os.environ.get("PATH", ""), SYSTEM]))
