"""`make run`: its parts, and once the whole of it, for real."""

from __future__ import annotations

import io
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from app.dev.child import Child, ChildFailed, free_port
from app.dev.embedded import Embedded
from app.dev.run import only_one, refuse_silent_database, refuse_taken_port, write_run_env
from app.dev.stack import NAMES, Stack, read_procfile, shell
from app.dev.terminal import LogWatch, Terminal
from app.settings import ROOT, Settings, read_env_file
from tests.waiting import until

READY = re.compile(r"^Waybill is ready at (http://127\.0\.0\.1:\d+)$", re.MULTILINE)
PARTS = ("app", "actors", "migrations", "templates", "Procfile", "wsgi.py", "gunicorn.conf.py")
GIVEN = {
    "DATABASE_URL": "postgresql://db.example.org/waybill",
    "REDIS_URL": "redis://redis.example.org",
    "STORAGE_URL": "s3://bucket/waybill",
    "MAIL_SERVER": "mail.example.org",
}


def test_it_starts_the_procfiles_own_commands(tmp_path: Path) -> None:
    commands = read_procfile()
    assert list(commands) == ["release", "web", "worker", "bulk", "clock"]
    stack = Stack({"PORT": "1"}, tmp_path)
    for name in NAMES:
        assert stack[name].command == shell(commands[name]) == ["/bin/sh", "-c", f"exec {commands[name]}"]


def test_the_procfile_keeps_clear_of_known_traps() -> None:
    commands = read_procfile()
    for name in ("worker", "bulk"):
        assert "--processes 1" in commands[name]
        assert "dramatiq_queue_prefetch=${WORKER_THREADS:-4}" in commands[name]
        assert "--threads ${WORKER_THREADS:-4}" in commands[name]


def test_a_taken_port_is_told_before_anything_is_installed(tmp_path: Path) -> None:
    """As `make run` does it where there is no .venv yet."""
    script = tmp_path / "app/dev/install.py"
    script.parent.mkdir(parents=True)
    script.write_bytes((ROOT / "app/dev/install.py").read_bytes())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = subprocess.run(
            [sys.executable, "-I", str(script), "run"],
            env={**os.environ, "PORT": str(port)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert said.returncode == 1
    assert said.stdout == ""
    assert said.stderr.startswith(f"Waybill is not running. Port {port} is taken by another program")
    assert not (tmp_path / ".venv").exists()


def test_a_taken_port_is_named_with_the_way_out() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ChildFailed, match=rf"Port {port} is taken .* make run PORT={port + 1}"):
            refuse_taken_port(port)


def test_a_database_of_your_own_that_is_silent_is_told_without_its_password() -> None:
    config = Settings(database_url=f"postgresql+psycopg://me:secret@127.0.0.1:{free_port()}/x")
    with pytest.raises(ChildFailed, match=r"DATABASE_URL cannot be used: .*refused") as failure:
        refuse_silent_database(config)
    assert "secret" not in failure.value.message


def test_only_one_runs_from_a_folder(tmp_path: Path) -> None:
    up_already = pytest.raises(ChildFailed, match=rf"up already .*process {os.getpid()}")
    with only_one(tmp_path), up_already, only_one(tmp_path):
        pass
    with only_one(tmp_path):
        pass


def test_what_the_environment_names_is_not_embedded(tmp_path: Path) -> None:
    assert Embedded(tmp_path, GIVEN).servers == []
    assert Embedded(tmp_path, GIVEN).environ() == {}
    assert len(Embedded(tmp_path, {}).servers) == 3
    lacking_redis = {name: value for name, value in GIVEN.items() if name != "REDIS_URL"}
    assert [server.name for server in Embedded(tmp_path, lacking_redis).servers] == ["Valkey"]


def test_a_second_terminal_reads_the_settings_and_only_them(tmp_path: Path) -> None:
    path = tmp_path / "run.env"
    write_run_env(path, GIVEN | {"AWS_REGION": "eu", "SOURCE_CRM_URL": "postgresql://crm/", "HOME": "/root"})
    assert read_env_file(path) == GIVEN | {"AWS_REGION": "eu", "SOURCE_CRM_URL": "postgresql://crm/"}
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_step_is_one_line_with_its_result_where_nothing_ticks() -> None:
    out = io.StringIO()
    with Terminal(out).step("PostgreSQL") as step:
        step.result = "127.0.0.1:5432"
    assert re.fullmatch(r"  PostgreSQL \.\.\.\n  PostgreSQL +\d\.\d s  127\.0\.0\.1:5432\n", out.getvalue())


def test_warnings_and_tracebacks_of_the_processes_are_shown(tmp_path: Path) -> None:
    log = tmp_path / "web.log"
    log.write_text("ERROR before we looked\n")
    watch = LogWatch({"web": log})
    with log.open("a") as file:
        file.write("[INFO] all is well\n[ERROR] it broke\nTraceback (most recent call last):\n  File 1\n")
        file.write("app.errors.SourceDown: gone\n[INFO] on we go\n[WARNING] half a li")
    assert [line for _, line in watch.serious()] == [
        "[ERROR] it broke",
        "Traceback (most recent call last):",
        "  File 1",
        "app.errors.SourceDown: gone",
    ]
    with log.open("a") as file:
        file.write("ne\n")
    assert list(watch.serious()) == [("web", "[WARNING] half a line")]


def test_a_child_that_fails_shows_its_last_words(tmp_path: Path) -> None:
    child = Child("worker", ["/bin/sh", "-c", "echo no luck; exit 3"], log=tmp_path / "worker.log")
    child.start()
    with pytest.raises(ChildFailed, match=r"(?s)worker ended with status 3 while starting.*no luck"):
        child.wait_until(lambda: False)


def test_a_child_that_does_not_listen_is_killed_with_its_children(tmp_path: Path) -> None:
    stubborn = "trap '' TERM; sleep 60 & echo $!; wait; sleep 60"
    child = Child("stubborn", ["/bin/sh", "-c", stubborn], log=tmp_path / "log", patience=0.3)
    child.start()
    child.wait_until(lambda: child.log.read_text().strip() != "")
    grandchild = int(child.log.read_text())
    child.stop()
    assert child.how_it_ended() == "was killed by SIGKILL"
    until(lambda: not lives(grandchild))


# --- the whole of it ------------------------------------------------------------------------------------


@pytest.fixture
def checkout(session_directory: Path) -> Iterator[Path]:
    """A copy of the project, so that its `var` is its own."""
    copy = session_directory / "checkout"
    copy.mkdir()
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, copy / part)
    yield copy
    shutil.rmtree(copy)


class Running:
    """`make run` in a folder, or without make, with what it printed. Signals go to that one process alone."""

    def __init__(self, folder: Path, mark: str, port: int, *, make: bool = True) -> None:
        kept = {name: value for name, value in os.environ.items() if name not in (*GIVEN, "ENVIRONMENT")}
        environ = kept | {"DEMO_TASKS": "3000", "PORT": str(port), "MARK": mark}
        run = [sys.executable, "-m", "app.dev.run"]
        (folder / "run.mk").write_text(f"run:\n\t@{' '.join(run)}\n")
        self.out = folder / f"out-{time.monotonic_ns()}"
        with self.out.open("w") as out:
            self.process = subprocess.Popen(
                ["make", "-f", "run.mk"] if make else run,
                cwd=folder,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # Tests in the background of a shell ignore Ctrl-C, and so would everything they start.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )

    def wait_ready(self, seconds: float = 180) -> str:
        deadline = time.monotonic() + seconds
        while True:
            text = self.out.read_text()
            if READY.search(text):
                return text
            assert self.process.poll() is None, text
            assert time.monotonic() < deadline, text
            time.sleep(0.1)

    def stop(self, number: signal.Signals) -> None:
        self.process.send_signal(number)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            raise AssertionError(f"still up after 60 s:\n{self.out.read_text()}") from None


def lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def left(mark: str) -> list[str]:
    """Processes that still carry the mark in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("MARK") == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_make_run_from_nothing_to_a_finished_job_and_back(checkout: Path) -> None:
    mark, port = secrets.token_hex(8), free_port()
    first = Running(checkout, mark, port)
    try:
        text = first.wait_ready()
        assert re.search(r"A first export is done: 3,000 rows, [\d,]+ bytes in", text), text
        assert f"http://127.0.0.1:{port}/d/" in text
        assert "member@demo.waybill.test  waybill-member" in text
        assert "admin@demo.waybill.test   waybill-admin" in text
        link = re.search(r"http://\S+/d/\S+", text)
        assert link is not None
        with urllib.request.urlopen(link[0]) as answer:
            assert answer.read().count(b"\n") >= 3_001

        second = Running(checkout, secrets.token_hex(8), free_port(), make=False)
        assert second.process.wait(60) == 1
        assert "up already from this folder" in second.out.read_text()

        flask = Path(sys.executable).with_name("flask")
        listed = subprocess.run(
            [flask, "reports", "list"],
            cwd=checkout,
            env={"PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=True,
        )
        assert "all_tasks" in listed.stdout
    finally:
        first.stop(signal.SIGINT)
    assert "Stopped. All data are kept" in first.out.read_text()
    assert left(mark) == []
    assert not (checkout / "var/run.env").exists()

    again = Running(checkout, mark, port, make=False)
    try:
        assert "A first export" not in again.wait_ready()
    finally:
        again.stop(signal.SIGTERM)
    assert again.process.returncode == 0
    assert left(mark) == []


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_dies_during_the_first_export_is_started_again(checkout: Path) -> None:
    mark, port = secrets.token_hex(8), free_port()
    run = Running(checkout, mark, port, make=False)
    try:
        until(lambda: "A first export" in run.out.read_text(), 120)
        for process in psutil.Process(run.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if any(word.endswith("bin/dramatiq") for word in process.cmdline()):
                    process.kill()
        text = run.wait_ready(60)
        assert "worker was killed by SIGKILL; it is started again" in text
        assert "A first export is done: 3,000 rows" in text
    finally:
        run.stop(signal.SIGTERM)
    assert left(mark) == []
