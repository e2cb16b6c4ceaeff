"""`make run`: everything that Waybill needs, on this machine, until Ctrl-C.

Starts the embedded servers that the environment does not name, migrates, makes the demo, starts the
Procfile's own commands, does the main job once, and then watches over all of them. All data stay in `var`.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from types import FrameType

import psycopg

from app.dev import demo, first
from app.dev.child import Child, ChildFailed, Server
from app.dev.embedded import Embedded
from app.dev.install import taken
from app.dev.mailbox import Mailbox
from app.dev.stack import Stack, read_procfile, shell
from app.dev.terminal import PROGRAM_COLOURS, LogWatch, Terminal
from app.errors import BadSettings, WaybillError
from app.settings import ROOT, Settings

VAR = ROOT / "var"
MEMBER = ("member@demo.waybill.test", "waybill-member", ("member",))
ADMIN = ("admin@demo.waybill.test", "waybill-admin", ("member", "admin"))
WATCH_SECONDS = 0.5
# A process that dies this often within a minute will not come to life by being started once more.
RESTARTS = 5
PEOPLE_SECONDS = 60.0
LOG_LIMIT = 10_000_000  # bytes; a longer log is put aside at the next start


class Stop(BaseException):
    """Ctrl-C, SIGTERM, or the terminal was closed."""


def main() -> None:
    terminal = Terminal()
    stop_with_make(os.environ)
    signal.signal(signal.SIGINT, _raise_stop)
    signal.signal(signal.SIGTERM, _raise_stop)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
        signal.signal(signal.SIGHUP, _raise_stop)
    try:
        with only_one(VAR):
            Run(terminal, VAR, os.environ).until_stopped()
    except Stop:
        return
    except WaybillError as error:
        terminal.say(f"\n{terminal.paint('Waybill is not running.', 'bad')} {error.message}")
        raise SystemExit(1) from None


class Run:
    """One start, its watch, and its end."""

    def __init__(self, terminal: Terminal, var: Path, environ: Mapping[str, str]) -> None:
        self.terminal = terminal
        self.var = var
        self.log = var / "log"
        self.given = environ
        self.port = _whole_number("PORT", environ.get("PORT") or "8000", 65535)
        self.url = environ.get("PUBLIC_URL") or f"http://127.0.0.1:{self.port}"
        self.embedded = Embedded(var, environ)
        self.environ: dict[str, str] = {}
        self.stack: Stack | None = None
        self.deaths: dict[str, list[float]] = {}

    def until_stopped(self) -> None:
        """Start everything, then watch; whatever happens, nothing is left behind."""
        refuse_taken_port(self.port)
        try:
            self.start()
            self.watch()
        finally:
            self.stop()

    def start(self) -> None:
        put_aside_long_logs(self.log)
        self.terminal.say(self.terminal.paint("Starting Waybill", "strong"))
        for server in self.embedded.servers:
            with self.terminal.step(server.name) as step:
                server.start()
                step.result = f"127.0.0.1:{server.port}"
        self.environ = self.environment()
        config = Settings.from_environ(self.environ)
        refuse_silent_database(config)
        write_run_env(self.var / "run.env", self.environ)
        with self.terminal.step("Database migrations"):
            self.command(read_procfile()["release"])
        self.stack = Stack(self.environ, self.log)
        self.stack.start()  # they come up while the demo data are made
        if config.demo:
            self.make_demo(config)
        with self.terminal.step("Web, workers and clock") as step:
            self.stack.wait_ready()
            step.result = f"127.0.0.1:{self.port}"
        self.announce(config, self.first_export(config))

    def environment(self) -> dict[str, str]:
        """What every process gets: what was given, and what it lacks."""
        defaults = {
            "ENVIRONMENT": "development",
            "PORT": str(self.port),
            "PUBLIC_URL": self.url,
            "SECRET_KEY": kept_secret(self.var / "secret_key"),
        }
        given = {name: value for name, value in self.given.items() if value or name not in defaults}
        return defaults | given | self.embedded.environ()

    def command(self, line: str) -> str:
        """Run a command to its end with the processes' environment; what it printed."""
        with (self.log / "commands.log").open("ab") as log:
            done = subprocess.run(
                shell(line),
                stdout=subprocess.PIPE,
                stderr=log,
                env=self.command_environ,
                cwd=ROOT,
                check=False,
            )
        said = done.stdout.decode(errors="replace")
        if done.returncode != 0:
            lines = [
                *said.splitlines(),
                *(self.log / "commands.log").read_text(errors="replace").splitlines(),
            ]
            raise ChildFailed(f"`{line}` failed:\n" + "\n".join(f"  {line}" for line in lines[-20:]))
        return said.strip()

    def make_demo(self, config: Settings) -> None:
        tasks = _whole_number("DEMO_TASKS", self.environ.get("DEMO_TASKS") or "1000000")
        people = self.people(config)
        people.start()
        try:
            with self.terminal.step("Demo data") as step:
                made = demo.load(config.database_url, tasks=tasks, report=step.note)
                people.wait(PEOPLE_SECONDS)
                step.result = f"{tasks:,} tasks" if made else "kept"
        finally:
            people.kill()

    def people(self, config: Settings) -> Child:
        """Makes the demo's people that are not there yet, in the background."""
        known = "SELECT FROM users WHERE email = %s"
        lines = [
            f"echo {password} | flask users create {email} {' '.join(f'--role {role}' for role in roles)} "
            "--password-stdin"
            for email, password, roles in (MEMBER, ADMIN)
            if not _exists(config, known, email)
        ]
        return Child(
            "Making the demo's people",
            ["/bin/sh", "-e", "-c", "\n".join(lines)],
            log=self.log / "commands.log",
            environ=self.command_environ,
            directory=ROOT,
        )

    def first_export(self, config: Settings) -> first.Result | None:
        """Once, when there was no job yet. A failure is told and no reason to stop: its page says more."""
        if not config.demo or _exists(config, "SELECT FROM jobs"):
            return None
        mailbox = Mailbox(Path(config.mailbox_dir)) if config.mailbox_dir else None
        try:
            with self.terminal.step("A first export") as step:
                token = self.command(f"flask tokens create {MEMBER[0]} --name 'make run'")
                return first.export(
                    f"http://127.0.0.1:{self.port}",
                    token,
                    mailbox=mailbox,
                    to=MEMBER[0],
                    note=step.note,
                    meanwhile=self.revive_dead,
                )
        except WaybillError as error:
            self.terminal.say(self.terminal.paint(error.message, "bad"))
            return None

    @property
    def command_environ(self) -> dict[str, str]:
        return Stack(self.environ, self.log, ()).environ

    def announce(self, config: Settings, result: first.Result | None) -> None:
        lines = [""]
        if result is not None:
            lines += [
                f"  A first export is done: {result.rows:,} rows, {result.bytes:,} bytes "
                f"in {result.seconds:.1f} s",
                *([f"    mail  {result.subject}"] if result.subject else []),
                f"    file  {result.link}",
                "",
            ]
        lines.append(self.terminal.paint(f"Waybill is ready at {self.url}", "strong"))
        if config.demo:
            width = max(len(person[0]) for person in (MEMBER, ADMIN))
            lines += [
                f"  member  {MEMBER[0]:<{width}}  {MEMBER[1]}",
                f"  admin   {ADMIN[0]:<{width}}  {ADMIN[1]}",
            ]
        if config.mailbox_dir:
            lines.append(f"  mails   {self.url}/mailbox")
        lines.append(f"  logs    {_short(self.log)}    stop with Ctrl-C")
        self.terminal.say("\n".join(lines))

    def watch(self) -> None:
        """Start again what dies, and show what warns; raises ChildFailed when something dies too often."""
        assert self.stack is not None
        programs = self.stack.processes
        logs = LogWatch({name: child.log for name, child in programs.items()})
        colours = dict(zip(programs, PROGRAM_COLOURS, strict=True))
        while True:
            for name, line in logs.serious():
                self.terminal.say(f"{self.terminal.paint(f'{name:<6} |', colours[name])} {line}")
            self.revive_dead()
            time.sleep(WATCH_SECONDS)

    def revive_dead(self) -> None:
        """Raises ChildFailed when something dies too often."""
        assert self.stack is not None
        processes: list[Child | Server] = [*self.embedded.servers, *self.stack.processes.values()]
        for process in processes:
            if not process.alive:
                self.revive(process)

    def revive(self, dead: Child | Server) -> None:
        child = dead.child if isinstance(dead, Server) else dead
        died = self.deaths.setdefault(child.name, [])
        died.append(time.monotonic())
        if len([at for at in died if at > time.monotonic() - 60]) > RESTARTS:
            raise ChildFailed(f"{child.name} died {RESTARTS} times within a minute.\n{child.tail()}")
        self.terminal.say(
            f"{self.terminal.paint(f'{child.name} {child.how_it_ended()}', 'bad')}; it is started again.\n"
            f"{child.tail()}"
        )
        dead.start()

    def stop(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # it ends soon anyhow, and cleanly
        self.terminal.say("\nStopping ...")
        if self.stack is not None:
            self.stack.stop()
        self.embedded.stop()
        (self.var / "run.env").unlink(missing_ok=True)
        self.terminal.say(f"Stopped. All data are kept in {_short(self.var)}.")


def stop_with_make(environ: Mapping[str, str]) -> None:
    """A signal to `make` alone: it hands on SIGTERM, but waits for us after SIGINT, and we outlive its death.

    A terminal signals us, too; a program that started `make` may not. So a thread looks after it.
    """
    if "MAKELEVEL" not in environ or sys.platform != "linux":
        return
    make = os.getppid()

    def look() -> None:
        while os.getppid() == make and not _handles_interrupt(make):
            time.sleep(WATCH_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=look, name="make", daemon=True).start()


def _handles_interrupt(pid: int) -> bool:
    """Whether it is inside its handler of SIGINT, which blocks that signal meanwhile."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    blocked = re.search(r"^SigBlk:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return blocked is not None and bool(int(blocked[1], 16) & 1 << (signal.SIGINT - 1))


@contextmanager
def only_one(var: Path) -> Iterator[None]:
    """Hold the folder for this process; raises ChildFailed when another one has it."""
    var.mkdir(exist_ok=True)
    with (var / "run.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            raise ChildFailed(
                f"It is up already from this folder (process {lock.read().strip() or 'unknown'}). "
                "Use that one, or stop it with Ctrl-C in its terminal."
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def refuse_taken_port(port: int) -> None:
    """Before anything is started, so that the message comes at once."""
    said = taken(port)
    if said:
        raise ChildFailed(said)


def refuse_silent_database(config: Settings) -> None:
    """A database of your own that does not answer is told in a sentence, not by a migration's traceback."""
    try:
        psycopg.connect(_libpq_url(config), connect_timeout=10).close()
    except psycopg.OperationalError as error:
        raise ChildFailed(f"The database of DATABASE_URL cannot be used: {str(error).strip()}") from None


def write_run_env(path: Path, environ: Mapping[str, str]) -> None:
    """The settings for `flask` in a second terminal; for our eyes only, as passwords are in it."""
    names = {field.name.upper() for field in fields(Settings)}
    lines = [
        f"{name}={value}\n"
        for name, value in sorted(environ.items())
        if (name in names or name.startswith(("AWS_", "SOURCE_"))) and "\n" not in value
    ]
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text("".join(lines))


def kept_secret(path: Path) -> str:
    """Made once, so that sessions and links live over a restart."""
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_hex(32))
    return path.read_text()


def put_aside_long_logs(log: Path) -> None:
    log.mkdir(parents=True, exist_ok=True)
    for path in log.glob("*.log"):
        if path.stat().st_size > LOG_LIMIT:
            path.replace(path.with_suffix(".log.1"))


def _exists(config: Settings, query: str, *values: str) -> bool:
    with psycopg.connect(_libpq_url(config)) as connection:
        return connection.execute(f"{query} LIMIT 1".encode(), values).fetchone() is not None


def _libpq_url(config: Settings) -> str:
    return config.database_url.replace("postgresql+psycopg://", "postgresql://", 1)


def _whole_number(name: str, text: str, most: int = 100_000_000) -> int:
    if not text.isdecimal() or not 0 < int(text) <= most:
        raise BadSettings(f"{name} is {text!r}; it must be a whole number from 1 to {most}.")
    return int(text)


def _short(path: Path) -> str:
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path) + "/"


def _raise_stop(number: int, frame: FrameType | None) -> None:
    raise Stop


if __name__ == "__main__":
    main()
