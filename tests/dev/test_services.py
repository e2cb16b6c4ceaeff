"""The embedded services: they start, stop, survive a kill, and die with their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import psutil
import psycopg
import pytest
import redis
from botocore.exceptions import ClientError
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.dev.child import ChildFailed
from app.dev.postgres import Postgres
from app.dev.seaweedfs import SeaweedFS
from app.dev.smtp import Smtp
from app.dev.valkey import Valkey
from app.settings import ROOT
from tests.waiting import until


@pytest.fixture
def postgres(session_directory: Path, request: pytest.FixtureRequest) -> Iterator[Postgres]:
    server = Postgres(session_directory / request.node.name, durable=False)
    yield server
    server.stop()


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    server = Valkey(tmp_path / "valkey")
    yield server
    server.stop()


def test_postgresql_keeps_its_data_over_stop_kill_and_a_stale_pid_file(postgres: Postgres) -> None:
    postgres.start()
    with psycopg.connect(postgres.url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS number")
    postgres.stop()
    assert not postgres.alive

    postgres.start()
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("INSERT INTO kept VALUES (2)")
    postgres.kill()
    # The number of a living process of ours, as after a restart of the machine.
    pid_file = postgres.data / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")

    postgres.start()
    with psycopg.connect(postgres.url) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (2,)


def test_postgresql_is_behind_a_password_that_only_we_can_read(postgres: Postgres) -> None:
    postgres.start()
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(f"postgresql://waybill:wrong@127.0.0.1:{postgres.port}/waybill")
    assert (postgres.directory / "password").stat().st_mode & 0o077 == 0


def test_a_service_that_cannot_start_says_why(postgres: Postgres) -> None:
    postgres.start()
    other = Postgres(postgres.directory.with_name("other"), port=postgres.port, durable=False)
    with pytest.raises(ChildFailed, match=r"(?s)PostgreSQL ended with status 1.*could not bind"):
        other.start()


def test_valkey_keeps_what_was_written_over_a_kill(valkey: Valkey) -> None:
    valkey.start()
    with redis.Redis.from_url(valkey.url) as client:
        client.set("kept", "yes")
        assert client.execute_command("WAITAOF", 1, 0, 30_000) == [1, 0]  # its append-only file has it
    valkey.kill()
    valkey.start()
    with redis.Redis.from_url(valkey.url) as client:
        assert client.get("kept") == b"yes"


def test_valkey_refuses_a_stranger(valkey: Valkey) -> None:
    valkey.start()
    with (
        redis.Redis(host="127.0.0.1", port=valkey.port, retry=Retry(NoBackoff(), 0)) as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()


def test_s3_answers_with_the_right_key_and_refuses_a_wrong_one(s3: SeaweedFS) -> None:
    client = boto3.client(
        "s3",
        endpoint_url=s3.url,
        aws_access_key_id=s3.access_key,
        aws_secret_access_key=s3.secret_key,
        region_name="us-east-1",
    )
    client.create_bucket(Bucket="services")
    client.put_object(Bucket="services", Key="one", Body=b"1")
    assert client.get_object(Bucket="services", Key="one")["Body"].read() == b"1"
    client.close()
    stranger = boto3.client(
        "s3",
        endpoint_url=s3.url,
        aws_access_key_id=s3.access_key,
        aws_secret_access_key="wrong",
        region_name="us-east-1",
    )
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        stranger.list_objects_v2(Bucket="services")
    stranger.close()


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels do not tell a child of its parent's death")
def test_services_die_with_a_parent_that_is_killed(session_directory: Path) -> None:
    directory = session_directory / "orphans"
    program = (
        "import sys, time; from pathlib import Path\n"
        "from app.dev.postgres import Postgres; from app.dev.smtp import Smtp\n"
        "from app.dev.valkey import Valkey\n"
        "directory = Path(sys.argv[1])\n"
        "services = [Postgres(directory / 'postgres', durable=False), Valkey(directory / 'valkey'),"
        " Smtp(directory / 'mail')]\n"
        "for service in services: service.start()\n"
        "print(*(service.pid for service in services), flush=True)\n"
        "time.sleep(60)\n"
    )
    command = [sys.executable, "-c", program, str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 3
        parent.send_signal(signal.SIGKILL)
    until(lambda: not any(_lives(pid) for pid in pids))


def test_two_mail_catchers_do_not_mind_each_other(tmp_path: Path) -> None:
    first, second = Smtp(tmp_path / "first"), Smtp(tmp_path / "second")
    try:
        first.start()
        second.start()
        assert first.port != second.port
    finally:
        first.stop()
        second.stop()
    assert not first.alive
    assert not second.alive


def _lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
