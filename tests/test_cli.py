"""The command line, as it is typed."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from sqlalchemy import select, update

from app import create_app, exports, leases
from app.extensions import db
from app.models.artifact import Artifact
from app.models.job import Job
from app.models.token import ApiToken
from app.models.user import User
from app.params import Param
from app.settings import ROOT


@pytest.fixture
def flask(runner):
    """flask("reports", "list") -> the result."""

    def run(*words, input=None):
        return runner.invoke(args=[*words], input=input)

    return run


@pytest.fixture
def worker(app, demo):
    """Does the next queued job in the background, as soon as there is one."""
    ended = threading.Event()

    def work():
        while not ended.wait(0.02):
            with app.app_context():
                job_id = db.session.scalar(select(Job.id).where(Job.status == "queued"))
                lease = leases.claim(job_id) if job_id else None
                if lease is not None:
                    exports.run(lease)

    thread = threading.Thread(target=work)
    thread.start()
    yield
    ended.set()
    thread.join()


def jobs(app):
    with app.app_context():
        return list(db.session.scalars(select(Job).order_by(Job.created_at)))


# flask reports


def test_reports_list_shows_every_report(flask, app):
    shown = flask("reports", "list")
    assert shown.exit_code == 0
    lines = shown.output.splitlines()
    assert lines[0].split() == ["KEY", "TITLE", "ROLES", "SOURCE"]
    assert len(lines) == 1 + len(app.extensions["waybill.reports"])
    assert any(line.startswith("all_tasks ") for line in lines)


def test_reports_check_is_content(flask, app):
    checked = flask("reports", "check")
    assert checked.exit_code == 0
    assert checked.output == f"All {len(app.extensions['waybill.reports'])} reports are in order.\n"


def test_reports_check_names_file_and_line_of_every_problem(environ, app, tmp_path):
    from app import create_app

    (tmp_path / "bad.sql").write_text('/*\ntitle = "Bad"\n*/\nDELETE FROM tasks\n')
    (tmp_path / "worse.sql").write_text("/*\ntitle = \n*/\nSELECT 1\n")
    broken = create_app(environ | {"REPORTS_PATH": str(tmp_path)}).test_cli_runner()
    checked = broken.invoke(args=["reports", "check"])
    assert checked.exit_code == 1
    assert f"{tmp_path}/bad.sql:4: " in checked.stderr
    assert f"{tmp_path}/worse.sql:2: " in checked.stderr
    assert checked.stderr.splitlines()[-1].startswith("Error: 3 problems in the reports.")


def test_reports_check_asks_every_source(environ, app, tmp_path):
    from app import create_app

    urls = {
        "SOURCE_OWN_URL": environ["DATABASE_URL"],
        "SOURCE_GONE_URL": f"sqlite:///{tmp_path}/gone.db",
        "SOURCE_AWAY_URL": "postgresql://me:secret@127.0.0.1:1/away",
    }
    checked = create_app(environ | urls).test_cli_runner().invoke(args=["reports", "check"])
    assert checked.exit_code == 0
    away, gone, own = checked.stderr.splitlines()
    assert away.startswith("Warning: The source 'away' does not answer")
    assert gone == "Warning: The source 'gone' does not answer: there is no such file."
    assert own.startswith("Warning: The account of the source 'own' is a superuser. Reports only read:")
    assert "secret" not in checked.output


# flask exports create


def test_an_export_is_queued_for_the_named_person(flask, app, admin, member):
    made = flask("exports", "create", "all_tasks", "--user", "member@example.org", "--param", "status=open")
    assert made.exit_code == 0
    [job] = jobs(app)
    assert made.output == f"Queued: http://127.0.0.1:8000/jobs/{job.id}\n"
    assert (job.owner.email, job.params["status"]) == ("member@example.org", "open")
    assert (job.format, job.dialect, job.compression) == ("csv", "machine", "none")


def test_without_a_name_the_first_administrator_asks(flask, app, member, admin, person):
    person("later@example.org", "admin")
    assert flask("exports", "create", "all_tasks").exit_code == 0
    assert jobs(app)[0].owner.email == "admin@example.org"


def test_without_any_administrator(flask, member):
    refused = flask("exports", "create", "all_tasks")
    assert refused.exit_code == 1
    assert refused.stderr == (
        "Error: There is no administrator yet. Say --user EMAIL, or: flask users create EMAIL --role admin\n"
    )


def test_waiting_shows_the_whole_log_and_the_link(flask, app, admin, worker):
    waited = flask("exports", "create", "all_tasks", "--wait", "--gzip")
    assert waited.exit_code == 0, waited.output
    with app.app_context():
        [job] = db.session.scalars(select(Job))
        texts = db.session.scalars(db.text("SELECT text FROM events ORDER BY number")).all()
    lines = waited.output.splitlines()
    assert lines[0].startswith("Queued: ")
    assert [line[10:] for line in lines[1:-1]] == texts
    assert lines[-1].startswith("File: http://127.0.0.1:8000/d/")
    assert (job.compression, job.status) == ("gzip", "succeeded")


def test_the_file_is_saved_whole_and_as_published(flask, app, admin, worker, tmp_path):
    target = tmp_path / "tasks.csv.gz"
    target.write_text("what was here before")
    saved = flask("exports", "create", "all_tasks", "--gzip", "--output", str(target))
    assert saved.exit_code == 0, saved.output
    with app.app_context():
        artifact = db.session.scalars(select(Artifact)).one()
    data = target.read_bytes()
    assert hashlib.sha256(data).hexdigest() == artifact.sha256
    assert gzip.decompress(data).count(b"\n") > 1000
    assert sorted(tmp_path.iterdir()) == [target, tmp_path / "tasks.csv.gz.receipt.json"]
    assert saved.output.splitlines()[-1] == f"Saved: {target} ({len(data):,} bytes, SHA-256 checked)"


def test_a_folder_gets_the_file_under_its_own_name(flask, app, admin, worker, tmp_path):
    assert flask("exports", "create", "all_tasks", "--output", str(tmp_path)).exit_code == 0
    [saved, _] = sorted(tmp_path.iterdir())
    assert saved.name.startswith("all-tasks-")
    assert saved.suffix == ".csv"


def test_bytes_that_are_not_those_of_the_receipt_are_not_saved(app, admin, flask, worker, tmp_path):
    from app.cli.files import save
    from app.errors import IncompleteArtifact

    assert flask("exports", "create", "all_tasks", "--wait").exit_code == 0
    with app.app_context():
        artifact = db.session.scalars(select(Artifact)).one()
        artifact.sha256 = "0" * 64
        with pytest.raises(IncompleteArtifact, match="nothing was saved"):
            save(app.extensions["waybill.storage"], artifact, tmp_path / "tasks.csv")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("place", ["no/tasks.csv", "a file/tasks.csv"])
def test_a_folder_that_is_not_there_is_told_before_anything_is_made(flask, app, admin, tmp_path, place):
    (tmp_path / "a file").touch()
    refused = flask("exports", "create", "all_tasks", "--output", str(tmp_path / place))
    assert refused.exit_code == 1
    assert refused.stderr == f"Error: {tmp_path}/{place} could not be written: there is no such folder.\n"
    assert jobs(app) == []


def test_a_name_that_cannot_be_is_told(flask, app, admin, tmp_path):
    refused = flask("exports", "create", "all_tasks", "--output", str(tmp_path / ("x" * 300)))
    assert refused.exit_code == 1
    assert "could not be written: File name too long" in refused.stderr
    assert jobs(app) == []


@pytest.fixture
def saved(flask, app, admin, worker, tmp_path):
    """saved("--gzip") -> the path of a downloaded file, its receipt beside it."""

    def save(*words):
        path = tmp_path / "tasks"
        made = flask("exports", "create", "all_tasks", *words, "--fresh", "--output", str(path))
        assert made.exit_code == 0, made.output
        return path

    return save


@pytest.mark.parametrize(
    "words", [(), ("--gzip",), ("--zip",), ("--format", "xlsx"), ("--format", "parquet")]
)
def test_a_file_is_checked_against_its_receipt(flask, saved, app, words):
    path = saved(*words)
    receipt = path.with_name("tasks.receipt.json")
    told = json.loads(receipt.read_text())
    assert told["rows"] == told["rows_expected"] == 2000
    assert told["definition_sha256"] == app.extensions["waybill.reports"].get("all_tasks").fingerprint
    checked = flask("exports", "verify", str(path))
    assert checked.exit_code == 0, checked.output
    assert checked.output.startswith(f"{path} is whole: 2,000 rows, {path.stat().st_size:,} bytes, SHA-256 ")
    moved = receipt.rename(receipt.with_name("elsewhere.json"))
    assert flask("exports", "verify", str(path)).exit_code == 1
    assert flask("exports", "verify", str(path), "--receipt", str(moved)).exit_code == 0
    assert flask("exports", "verify", str(path), "--job", told["job"]).exit_code == 0


def test_every_difference_is_told(flask, saved):
    path = saved()
    whole = path.read_bytes()
    for changed, told in (
        (whole[:-10], ["cut short", "SHA-256", "1,999 rows, the receipt says 2,000"]),
        (whole + b"one more row\n", ["Something was added", "SHA-256", "2,001 rows"]),
        (whole.replace(b"o", b"0", 1), ["the right size", "SHA-256"]),
        (b"", ["cut short: it has 0 bytes", "SHA-256", "0 rows"]),
    ):
        path.write_bytes(changed)
        checked = flask("exports", "verify", str(path))
        assert checked.exit_code == 1
        *differences, last = checked.stderr.splitlines()
        assert len(differences) == len(told)
        assert all(words in line for words, line in zip(told, differences, strict=True))
        assert last == f"Error: {path} is not the file of its receipt."


@pytest.mark.parametrize("compression", ["--gzip", "--zip"])
def test_a_broken_archive_is_told(flask, saved, compression):
    path = saved(compression)
    path.write_bytes(path.read_bytes()[:2000])
    checked = flask("exports", "verify", str(path))
    assert checked.exit_code == 1
    assert "Its rows can't be counted: the compression is broken." in checked.stderr


def test_a_receipt_that_is_none_is_told(flask, app, admin, tmp_path):
    path, receipt = tmp_path / "x.csv", tmp_path / "x.csv.receipt.json"
    path.write_text("id\n")
    assert "There is no receipt" in flask("exports", "verify", str(path)).stderr
    for text in ("{", "[]", '{"rows": 1}', '{"rows": "1", "bytes": [], "sha256": 3}'):
        receipt.write_text(text)
        assert "is no receipt of Waybill" in flask("exports", "verify", str(path)).stderr
    job = "00000000-0000-4000-8000-000000000000"
    assert "There is no job" in flask("exports", "verify", str(path), "--job", job).stderr
    receipt.write_text('{"rows": 1, "bytes": 1, "sha256": ""}')
    assert (
        "can't be read"
        in flask("exports", "verify", str(tmp_path / "none"), "--receipt", str(receipt)).stderr
    )
    assert flask("exports", "verify", str(path), "--receipt", "x", "--job", job).exit_code == 2


def test_a_job_that_fails_while_being_waited_for(flask, app, admin, worker, monkeypatch):
    with app.app_context():
        db.session.execute(db.text("ALTER TABLE demo.tasks RENAME TO hidden"))
        db.session.commit()
    try:
        waited = flask("exports", "create", "all_tasks", "--wait")
    finally:
        with app.app_context():
            db.session.execute(db.text("ALTER TABLE demo.hidden RENAME TO tasks"))
            db.session.commit()
    assert waited.exit_code == 1
    assert "Error: The job is failed." in waited.stderr


def test_waiting_while_nobody_works_says_so(flask, app, admin, monkeypatch):
    from app.cli import exports as command

    monkeypatch.setattr(command, "PATIENCE", 0.0)
    threading.Timer(0.5, _cancel_all, [app]).start()
    waited = flask("exports", "create", "all_tasks", "--wait")
    assert "No worker is listening to the queue 'default'" in waited.stderr
    assert waited.exit_code == 1
    assert "Error: The job is cancelled." in waited.stderr


def _cancel_all(app):
    from app import jobs as verbs

    with app.app_context():
        for job in db.session.scalars(select(Job)).all():
            verbs.cancel(job)


def test_wrong_params_are_told_one_a_line(flask, app, admin):
    refused = flask("exports", "create", "all_tasks", "-p", "status=lost", "-p", "since=soon", "-p", "sinc=x")
    assert refused.exit_code == 1
    lines = refused.stderr.splitlines()
    assert {line.strip().partition(":")[0] for line in lines[1:]} == {"status", "since", "sinc"}
    assert "Traceback" not in refused.output
    assert jobs(app) == []


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["no_such"], 1, "There is no report 'no_such'"),
        (["all_task"], 1, "Did you mean all_tasks?"),
        (["all_tasks", "--format", "docx"], 1, "There is no format 'docx'"),
        (["all_tasks", "--dialect", "klingon"], 1, "no dialect 'klingon'"),
        (["all_tasks", "--user", "nobody@example.org"], 1, "There is no account for nobody@example.org"),
        (["all_tasks", "--param", "status"], 2, "write it as NAME=VALUE"),
        (["members", "--user", "member@example.org"], 1, "There is no report 'members' for you"),
        (["all_tasks", "--nope"], 2, "--nope"),
        ([], 2, "Missing argument 'KEY'"),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(flask, admin, member, words, code, told):
    refused = flask("exports", "create", *words)
    assert refused.exit_code == code
    assert told in refused.stderr
    assert "Traceback" not in refused.output


def test_help_shows_the_report_s_own_parameters(flask):
    shown = flask("exports", "create", "all_tasks", "--help")
    assert shown.exit_code == 0
    assert "All tasks:" in shown.output
    assert "Parameters of this report:" in shown.output
    assert "--status [open|" in shown.output
    assert "--since DATE" in shown.output
    assert "Parameters of this report" not in flask("exports", "create", "--help").output


@pytest.mark.parametrize(
    ("param", "flag", "told"),
    [
        (Param("at_least", "int", default=1), "--at-least", "[default: 1]"),
        (Param("none_too", "bool", default=False), "--none-too", "[default: no]"),
        (Param("ids", "list", items="int", default=[1, 2]), "--ids", "[default: 1,2]"),
        (Param("since", "date", default="last month"), "--since", "[default: last month]"),
        (Param("name", required=True, help="In full."), "--name", "Name. In full. [required]"),
    ],
)
def test_an_option_tells_its_default_as_it_is_typed(param, flag, told):
    from app.cli.exports import option_of

    option = option_of(param)
    assert option.opts == [flag]
    assert told in str(option.help)


def test_a_report_s_parameters_are_options(flask, app, admin):
    words = ["--status", "open", "--assignees", "a@example.org,b@example.org", "--assignees", "c@example.org"]
    made = flask("exports", "create", "all_tasks", *words, "-p", "assignees=d@example.org")
    assert made.exit_code == 0, made.output
    [job] = jobs(app)
    assert job.params["status"] == "open"
    assert job.params["assignees"] == ["a@example.org", "b@example.org", "c@example.org", "d@example.org"]


# flask tokens


def test_a_token_is_printed_alone_and_opens_the_api(flask, client, member):
    made = flask("tokens", "create", "Member@example.org", "--name", "nightly")
    assert made.exit_code == 0
    secret = made.output.removesuffix("\n")
    assert secret.startswith("wb_")
    assert secret.split() == [secret]
    assert client.get("/api/v1/jobs", headers={"Authorization": f"Bearer {secret}"}).status_code == 200


def test_tokens_are_listed_without_their_secrets_and_revoked(flask, app, client, member, other):
    secret = flask("tokens", "create", "member@example.org", "--name", "nightly").output.strip()
    flask("tokens", "create", "other@example.org")
    listed = flask("tokens", "list", "member@example.org").output
    assert "nightly" in listed
    assert "good" in listed
    assert "other@example.org" not in listed
    assert secret not in listed
    assert "other@example.org" in flask("tokens", "list").output
    with app.app_context():
        token_id = db.session.scalar(select(ApiToken.id).where(ApiToken.name == "nightly"))
    assert (
        flask("tokens", "revoke", str(token_id)).output == f"Token {token_id} ({secret[:7]}…) is revoked.\n"
    )
    assert client.get("/api/v1/jobs", headers={"Authorization": f"Bearer {secret}"}).status_code == 401
    assert "revoked 20" in flask("tokens", "list", "member@example.org").output


def test_tokens_of_nobody(flask, app):
    for words in (["create", "nobody@example.org"], ["list", "nobody@example.org"], ["revoke", "7"]):
        refused = flask("tokens", *words)
        assert refused.exit_code == 1
        assert refused.stderr.startswith("Error: There is no ")


def test_a_closed_account_gets_no_token(flask, app, member):
    with app.app_context():
        db.session.execute(update(User).values(active=False))
        db.session.commit()
    refused = flask("tokens", "create", "member@example.org")
    assert refused.exit_code == 1
    assert refused.stderr == "Error: The account of member@example.org is closed.\n"


# flask users


def test_an_account_with_a_password_from_standard_input_can_sign_in(flask, auth):
    made = flask("users", "create", "New@Example.org", "--password-stdin", input="a long enough password\n")
    assert made.exit_code == 0, made.output
    assert made.output == "Made an account for new@example.org (member).\n"
    assert auth.sign_in("new@example.org", "a long enough password").status_code in (302, 303)


def test_the_password_is_asked_for_twice_and_not_shown(flask, app):
    typed = "a long enough password\n"
    made = flask("users", "create", "new@example.org", "--role", "admin", "--role", "member", input=typed * 2)
    assert made.exit_code == 0, made.output
    assert "a long enough password" not in made.output
    assert made.output.endswith("Made an account for new@example.org (admin, member).\n")


def test_an_account_without_a_password(flask, app):
    assert flask("users", "create", "new@example.org", "--no-password").exit_code == 0
    with app.app_context():
        assert db.session.scalars(select(User.password)).all() == [None]


@pytest.mark.parametrize(
    ("words", "password", "code"),
    [
        (["not-an-address", "--no-password"], None, 1),
        (["new@example.org", "--password-stdin"], "short\n", 1),
        (["new@example.org", "--password-stdin"], "", 1),
        (["member@example.org", "--no-password"], None, 1),
        (["new@example.org", "--role", "king", "--no-password"], None, 2),
        (["new@example.org", "--password-stdin", "--no-password"], None, 2),
    ],
)
def test_accounts_that_cannot_be_made(flask, app, member, words, password, code):
    refused = flask("users", "create", *words, input=password)
    assert refused.exit_code == code
    assert "Error: " in refused.stderr
    with app.app_context():
        assert db.session.scalars(select(User.email)).all() == ["member@example.org"]


# flask sweep, flask clock, and all of them as processes


def test_a_sweep_tells_what_it_did(flask, app, admin):
    flask("exports", "create", "all_tasks")
    with app.app_context():
        db.session.execute(
            update(Job).values(dispatched_at=None, created_at=db.text("now() - interval '1 minute'"))
        )
        db.session.commit()
    swept = flask("sweep")
    assert swept.exit_code == 0
    assert swept.output.startswith("Swept: ")
    assert jobs(app)[0].dispatched_at is not None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_clock_stops_when_told(app, environ, number):
    with app.app_context():
        db.session.execute(db.text("INSERT INTO workers (id, queues, threads) VALUES ('gone', '{low}', 1)"))
        db.session.execute(db.text("UPDATE workers SET seen_at = now() - interval '1 year'"))
        db.session.commit()
    with process(environ, "clock") as clock:
        _until_no_workers(app)
        clock.send_signal(number)
        _, told = clock.communicate(timeout=60)
    assert clock.returncode == 0
    assert "[INFO] app.sweep: Swept. old rows: 1" in told


def _until_no_workers(app):
    began = time.monotonic()
    while time.monotonic() - began < 30:
        with app.app_context():
            if not db.session.execute(db.text("SELECT FROM workers")).all():
                return
        time.sleep(0.1)
    raise AssertionError("The clock swept nothing.")


def test_in_a_process_of_its_own_a_failure_has_no_traceback(app, environ):
    with process(environ, "tokens", "create", "nobody@example.org") as failing:
        _, told = failing.communicate(timeout=60)
    assert failing.returncode == 1
    assert told.startswith("Error: There is no account for nobody@example.org.")
    assert "Traceback" not in told


def test_what_keeps_waybill_from_starting_is_told_in_a_sentence(environ, tmp_path):
    (tmp_path / "bad.sql").write_text('/*\ntitle = "Bad"\n*/\nSELECT 1; SELECT 2\n')
    production = {"ENVIRONMENT": "production", "REPORTS_PATH": str(tmp_path)}
    with process(environ | production, "reports", "check") as failing:
        _, told = failing.communicate(timeout=60)
    assert failing.returncode == 3
    assert told.startswith("Waybill cannot start. These reports must be mended:")
    assert f"{tmp_path}/bad.sql:4: there is more than one statement" in told
    assert "Traceback" not in told


def test_a_database_that_is_down_is_told_in_a_sentence(environ):
    with process(environ | {"DATABASE_URL": "postgresql://127.0.0.1:1/none"}, "tokens", "list") as failing:
        _, told = failing.communicate(timeout=60)
    assert failing.returncode == 1
    assert "Error: The database does not answer" in told
    assert "Traceback" not in told


def test_beside_the_running_processes(stack, tmp_path):
    def flask(*words):
        with process(stack.settings, *words) as command:
            said, told = command.communicate(timeout=60)
        assert command.returncode == 0, told
        return said.strip()

    flask("users", "create", "cli@example.org", "--role", "admin", "--no-password")
    saved = flask("exports", "create", "all_tasks", "--user", "cli@example.org", "--output", str(tmp_path))
    lines = saved.splitlines()
    assert lines[0].startswith(f"Queued: {stack.base_url}/jobs/")
    assert any("Started." in line for line in lines)
    assert lines[-1].endswith("SHA-256 checked)")
    token = flask("tokens", "create", "cli@example.org")
    request = Request(f"{stack.base_url}/api/v1/jobs", headers={"Authorization": f"Bearer {token}"})
    with urlopen(request, timeout=30) as answer:
        [job] = json.load(answer)["items"]
    [path, receipt] = sorted(tmp_path.iterdir())
    assert hashlib.sha256(path.read_bytes()).hexdigest() == job["artifact"]["sha256"]
    with urlopen(job["artifact"]["receipt_url"], timeout=30) as answer:
        assert answer.read() == receipt.read_bytes()
    assert flask("exports", "verify", str(path)).startswith(f"{path} is whole: ")


def process(environ: dict[str, str], *words: str) -> subprocess.Popen[str]:
    flask = Path(sys.executable).with_name("flask")
    return subprocess.Popen(
        [flask, *words],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_database_without_tables_is_told_in_a_sentence(environ, services):
    app = create_app(environ | {"DATABASE_URL": services.database("bare")})
    refused = app.test_cli_runner().invoke(args=["tokens", "list"])
    with app.app_context():
        db.engine.dispose()
    assert refused.exit_code == 1
    assert refused.stderr.endswith("Make them with: flask db upgrade\n")


def test_a_token_that_cannot_be_is_told(flask):
    refused = flask("tokens", "revoke", str(2**40))
    assert refused.exit_code == 2
    assert "is not in the range" in refused.stderr
