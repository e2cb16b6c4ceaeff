"""What is found wrong, each from a real state of the database, and what the clock notes of itself."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from apiflask import APIFlask
from sqlalchemy.exc import OperationalError, ProgrammingError

from app import create_app, monitoring, sweep, uploads
from app import delivery as deliveries
from app.dev.child import free_port
from app.dev.stack import read_procfile
from app.extensions import db
from app.imports import requests
from app.models import Artifact, Clock, Delivery, Import, Job, User, Worker
from app.models import job as transitions
from app.models.clock import PROMPT, SLOW
from app.monitoring import Finding, queries
from app.monitoring.findings import ADVICE, PROCESSES, span
from app.sweep import cleaning
from tests.waiting import until

NOW = sa.func.clock_timestamp()
MEMBERS = b"email,name,company,joined\nann@example.org,Ann,Acme,2026-01-31\n"


def ago(**length: float) -> Any:
    return NOW - timedelta(**length)


@pytest.fixture(autouse=True)
def context(app: APIFlask) -> Iterator[None]:
    with app.app_context():
        yield


def add(*rows: Any) -> None:
    db.session.add_all(rows)
    db.session.commit()


def clocks(**failing: dict[str, str]) -> list[Clock]:
    return [Clock(id="clock", passes=passes, failing=failing.get(passes, {})) for passes in (PROMPT, SLOW)]


@pytest.fixture
def attended() -> None:
    """Somebody listens to each queue."""
    workers = [("worker", ["default", "high"]), ("bulk", ["low"])]
    add(*(Worker(id=name, queues=queues, threads=4) for name, queues in workers))


@pytest.fixture
def well(attended: None) -> None:
    """Every process of the Procfile is at work."""
    add(*clocks())


@pytest.fixture
def make(member: Any) -> Callable[..., UUID]:
    """make("failed", error_code="internal"): a job; its id."""

    def make(status: str = "queued", **values: Any) -> UUID:
        job_id = uuid4()
        defaults = {"kind": "export", "definition": "all_tasks", "title": "All tasks"}
        add(Job(id=job_id, owner_id=member.id, status=status, **(defaults | values)))
        return job_id

    return make


def found() -> dict[str, Finding]:
    """The findings of now; none of these tests has two of a kind."""
    findings = monitoring.findings(monitoring.look())
    assert len({finding.code for finding in findings}) == len(findings)
    for finding in findings:
        assert finding.level in monitoring.CODES[finding.code]
        assert finding.what.endswith(".")
        assert finding.do.endswith(".")
    return {finding.code: finding for finding in findings}


# Queues and workers.


def test_all_is_well(well: None, make: Callable[..., UUID]) -> None:
    make("queued")
    make("running", attempt=1, lease_expires_at=NOW + timedelta(minutes=1))
    make("succeeded", finished_at=ago(minutes=1))
    make("failed", finished_at=ago(minutes=1), error_code="query_failed", error_message="No such column.")
    assert found() == {}
    assert monitoring.level([]) == "ok"


def test_nobody_listens_and_somebody_waits(well: None, make: Callable[..., UUID]) -> None:
    db.session.execute(sa.delete(Worker).where(Worker.id == "bulk"))
    for minutes in (12.5, 3, 1):
        make("queued", queue="low", created_at=ago(minutes=minutes))
    [finding] = found().values()
    assert (finding.code, finding.level) == ("queue_unattended", "critical")
    assert finding.what == "Nobody listens to the queue low: 3 jobs wait, the first for 12 minutes."
    assert finding.do.startswith("Start the process `bulk`.")


def test_nobody_listens_and_nobody_waits_yet(well: None) -> None:
    db.session.execute(sa.delete(Worker).where(Worker.id == "worker"))
    db.session.commit()
    finding = found()["queue_unattended"]
    assert finding.level == "warning"
    assert finding.what == "Nobody listens to the queues high and default; nothing waits there yet."
    assert "`worker`" in finding.do


def test_a_deploy_is_nothing_critical(well: None, make: Callable[..., UUID]) -> None:
    db.session.execute(sa.delete(Worker).where(Worker.id == "worker"))
    make("queued")
    finding = found()["queue_unattended"]
    assert finding.level == "warning"
    assert finding.what.startswith("Nobody listens to the queues high and default: 1 job waits for ")


def test_mails_wait_where_nobody_sends_them(well: None, make: Callable[..., UUID]) -> None:
    db.session.execute(sa.delete(Worker).where(Worker.id == "worker"))
    add(delivery(make("succeeded", finished_at=NOW), next_attempt_at=ago(minutes=3)))
    assert "1 mail waits for 3 minutes." in found()["queue_unattended"].what


def test_a_worker_that_fell_silent_listens_to_nothing(well: None, make: Callable[..., UUID]) -> None:
    db.session.execute(sa.update(Worker).where(Worker.id == "bulk").values(seen_at=ago(minutes=2)))
    db.session.commit()
    findings = found()
    assert findings.keys() == {"queue_unattended", "worker_lost"}
    what = "1 worker fell silent without signing off, the last one 2 minutes ago (bulk): "
    assert findings["worker_lost"].what.startswith(what)
    db.session.execute(sa.update(Worker).where(Worker.id == "bulk").values(seen_at=ago(minutes=11)))
    db.session.commit()
    assert found().keys() == {"queue_unattended"}


@pytest.mark.parametrize(
    ("busy", "minutes", "level", "advice"),
    [
        (4, 6, "warning", "Start more"),
        (0, 6, "warning", "Look into the log"),
        (4, 61, "critical", "Start more"),
    ],
)
def test_a_slow_queue(
    well: None, make: Callable[..., UUID], busy: int, minutes: int, level: str, advice: str
) -> None:
    for _ in range(busy):
        make("running", attempt=1, worker="worker", lease_expires_at=NOW + timedelta(minutes=1))
    make("queued", created_at=ago(minutes=minutes))
    finding = found()["queue_slow"]
    assert finding.level == level
    assert f"{busy} are at its jobs" in finding.what
    assert finding.do.startswith(advice)


def test_who_is_tried_again_waits_since_then(well: None, make: Callable[..., UUID]) -> None:
    job_id = make("failed", created_at=ago(days=3), finished_at=ago(days=2), attempt=1)
    with db.engine.begin() as conn:
        assert transitions.reopen(conn, job_id)
    leader, follower = make("queued"), make("queued", created_at=ago(hours=2))
    values = {"follows_id": leader, "sharing": "joined"}
    db.session.execute(sa.update(Job).where(Job.id == follower).values(values))
    db.session.commit()
    with db.engine.begin() as conn:
        assert transitions.leave(conn, follower, leader)
    assert found() == {}


def test_who_goes_on_after_a_pause_waits_since_then(
    well: None, make: Callable[..., UUID], import_: UUID, demo: None
) -> None:
    step = {"kind": "import", "import_id": import_, "step": "apply", "queue": "high"}
    job_id = make("queued", created_at=ago(hours=2), paused_at=ago(hours=1), **step)
    requests.resume(db.session.get_one(Job, job_id))
    assert found() == {}
    [high] = [queue for queue in monitoring.look().queues if queue.name == "high"]
    assert high.waiting == 1


def test_what_waits_for_later_is_not_due(well: None, make: Callable[..., UUID]) -> None:
    make("queued", created_at=ago(hours=2), next_attempt_at=NOW + timedelta(hours=1))
    make("queued", created_at=ago(hours=2), paused_at=NOW, kind="import")
    looked = monitoring.look()
    [default] = [queue for queue in looked.queues if queue.name == "default"]
    assert (default.waiting, default.later, default.longest_wait) == (0, 2, 0.0)


def test_what_a_worker_holds(well: None, make: Callable[..., UUID]) -> None:
    for worker in ("worker", "worker", "long dead"):
        make("running", attempt=1, worker=worker, lease_expires_at=NOW + timedelta(minutes=1), size="small")
    looked = monitoring.look()
    assert {worker.id: worker.jobs for worker in looked.workers} == {"worker": 2, "bulk": 0}
    [default] = [queue for queue in looked.queues if queue.name == "default"]
    assert (default.running, default.workers, default.threads) == ({"small": 3}, 1, 4)


def test_the_processes_named_listen_to_those_queues() -> None:
    started = read_procfile()
    for queue, process in PROCESSES.items():
        assert queue in started[process].partition("--queues")[2].split()


# The clock.


def test_no_clock_ever(well: None) -> None:
    db.session.execute(sa.delete(Clock))
    db.session.commit()
    finding = found()["clock_silent"]
    assert finding.level == "critical"
    assert "no pass is known" in finding.what


def test_a_silent_clock_is_not_believed_about_the_rest(well: None) -> None:
    db.session.execute(
        sa.update(Clock).values(seen_at=ago(minutes=5), failing={"expired files": "The disk is read-only."})
    )
    db.session.commit()
    [finding] = found().values()
    assert "the last pass was 5 minutes ago" in finding.what
    assert "`clock`" in finding.do


def test_one_living_clock_is_enough(well: None) -> None:
    add(Clock(id="dead", passes=PROMPT, seen_at=ago(hours=3), failing={"lost messages": "Redis is away"}))
    assert found() == {}


def test_cleaning_that_comes_to_no_end(well: None) -> None:
    db.session.execute(sa.update(Clock).where(Clock.passes == SLOW).values(seen_at=ago(hours=2)))
    db.session.commit()
    assert "nothing for 2 hours" in found()["cleaning_silent"].what


def test_steps_of_the_sweep_that_fail(well: None) -> None:
    db.session.execute(sa.delete(Clock))
    slow = {"storage": "The bucket is gone.", "old log lines": "Redis is away"}
    add(*clocks(prompt={"lost messages": "Redis is away"}, slow=slow))
    findings = found()
    what = "The clock fails at “lost messages”, “old log lines”: Redis is away."
    assert findings["sweep_failing"].what == what
    assert findings["storage_down"].level == "critical"
    assert findings["storage_down"].what.endswith("The bucket is gone.")


def test_a_clock_notes_its_passes_and_what_fails_in_them(
    environ: dict[str, str], attended: None, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.touch()
    app = create_app(environ | {"STORAGE_URL": (file / "folder").as_uri()})
    stop = threading.Event()

    def run() -> None:
        with app.app_context():
            sweep.clock(stop, every=0.05)
            db.engine.dispose()

    def noted() -> dict[str, Any]:
        rows = db.session.execute(sa.select(Clock.passes, Clock.failing)).all()
        db.session.rollback()
        return {row.passes: row.failing for row in rows}

    thread = threading.Thread(target=run)
    thread.start()
    try:
        until(lambda: sweep.STORAGE in noted().get(SLOW, {}))
    finally:
        stop.set()
        thread.join()
    assert noted()[PROMPT] == {}
    assert found()["storage_down"].level == "critical"
    db.session.execute(sa.update(Clock).values(seen_at=ago(days=2)))
    db.session.commit()
    cleaning.old_rows()
    assert noted() == {}


# Jobs.


def test_an_overdue_lease(well: None, make: Callable[..., UUID]) -> None:
    make("running", attempt=1, lease_expires_at=ago(seconds=20))
    assert found() == {}, "the clock takes it over any moment"
    make("running", attempt=1, lease_expires_at=ago(minutes=3))
    finding = found()["leases_overdue"]
    assert finding.level == "critical"
    assert finding.what == "2 jobs lost their worker 3 minutes ago, and nobody has taken them over."


def test_failures_that_are_ours_to_mend(well: None, make: Callable[..., UUID]) -> None:
    why = {"error_code": "source_down", "error_message": "The source demo does not answer"}
    make("failed", finished_at=ago(minutes=90), **why)
    make("failed", finished_at=ago(minutes=30), **why)
    latest = make("failed", finished_at=ago(minutes=5), definition="members", title="Members", **why)
    finding = found()["jobs_failing"]
    assert finding.what == (
        "2 jobs failed within the last hour for source_down (All tasks, Members). "
        "The last one: The source demo does not answer."
    )
    assert finding.job_id == latest
    failures = {one.definition: (one.jobs, one.recent) for one in monitoring.look().failures}
    assert failures == {"all_tasks": (2, 1), "members": (1, 1)}


def test_what_is_long_over_is_told_no_more(well: None, make: Callable[..., UUID]) -> None:
    make("failed", finished_at=ago(hours=25), error_code="internal", error_message="KeyError")
    looked = monitoring.look()
    assert (looked.failures, looked.ended, monitoring.findings(looked)) == ([], [], [])


def test_the_advice_is_for_codes_that_there_are() -> None:
    code = "\n".join(path.read_text() for path in Path(sweep.__file__).parents[1].rglob("*.py"))
    for known in ADVICE:
        assert code.count(f'"{known}"') > 1, known


# Mails.


def delivery(job_id: UUID, **values: Any) -> Delivery:
    return Delivery(job_id=job_id, name="ready", attempt=1, message_id=str(uuid4()), **values)


def test_a_late_mail(well: None, make: Callable[..., UUID]) -> None:
    job_id = make("succeeded", finished_at=ago(minutes=30))
    later = NOW + timedelta(minutes=4)
    why = {"error_code": "mail_late", "last_error": "The mail server does not answer."}
    add(delivery(job_id, created_at=ago(minutes=30), tries=5, next_attempt_at=later, **why))
    finding = found()["mails_late"]
    assert finding.what == "1 mail is late, the first by 30 minutes: The mail server does not answer."
    assert "MAIL_*" in finding.do


def test_a_mail_that_was_given_up(well: None, make: Callable[..., UUID]) -> None:
    job_id = make("succeeded", finished_at=ago(hours=3))
    why = {"error_code": "mail_refused", "last_error": "The mail server knows no such address."}
    add(delivery(job_id, given_up_at=ago(hours=2), **why))
    finding = found()["mails_given_up"]
    assert finding.job_id == job_id
    assert finding.what.endswith("The mail server knows no such address.")


def test_a_mail_that_nobody_needs_any_more_is_nothing(well: None, make: Callable[..., UUID]) -> None:
    why = {"error_code": "pointless", "last_error": "The file expired before a mail could be sent."}
    add(delivery(make("succeeded", finished_at=NOW), given_up_at=NOW, **why))
    assert found() == {}


def test_a_sender_notes_by_code_why_a_mail_is_given_up(
    well: None, make: Callable[..., UUID], member: Any
) -> None:
    row = delivery(make("succeeded", finished_at=NOW))
    db.session.execute(sa.update(User).where(User.id == member.id).values(active=False))
    add(row)
    deliveries.deliver(row.id)
    code = db.session.scalar(sa.select(Delivery.error_code).where(Delivery.given_up_at.is_not(None)))
    assert code == "pointless"
    assert found() == {}


# Imports, storage, Redis.


@pytest.fixture
def import_(member: Any) -> UUID:
    upload = uploads.begin(db.session.merge(member), "members.csv")
    uploads.complete(uploads.receive(upload, 0, io.BytesIO(MEMBERS)))
    return UUID(str(requests.create(db.session.merge(member), "members", upload).id))


def test_an_import_that_stopped_in_the_middle(
    well: None, make: Callable[..., UUID], import_: UUID, demo: None
) -> None:
    step = {"kind": "import", "import_id": import_, "step": "apply", "attempt": 1}
    first = make("failed", finished_at=ago(minutes=5), error_code="source_refused", **step)
    counts = {"inserted": 7, "updated": 0}
    db.session.execute(sa.update(Import).values(result=counts))
    db.session.commit()
    finding = found()["imports_stopped"]
    assert finding.job_id == first
    db.session.execute(sa.update(Import).values(result=counts | {"inserted": 0}))
    db.session.commit()
    assert found() == {}, "nothing of it is in the table"
    db.session.execute(sa.update(Import).values(result=counts))
    make("running", lease_expires_at=NOW + timedelta(minutes=1), **step)
    assert found() == {}, "it goes on"


def test_what_the_storage_keeps(make: Callable[..., UUID], import_: UUID) -> None:
    def artifact(key: str, **values: Any) -> Artifact:
        file = {"filename": "a.csv", "content_type": "text/csv", "rows": 1, "sha256": "0", "receipt": {}}
        return Artifact(job_id=make("succeeded", finished_at=NOW), key=key, expires_at=NOW, **file, **values)

    add(artifact("a", bytes=10), artifact("a", bytes=10), artifact("b", bytes=5))
    add(artifact("c", bytes=99, removed_at=NOW))
    kept = monitoring.look().kept
    assert (kept.artifacts, kept.artifact_bytes) == (2, 15)
    assert (kept.uploads, kept.upload_bytes) == (1, len(MEMBERS))


def test_without_redis(environ: dict[str, str], well: None) -> None:
    with create_app(environ | {"REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"}).app_context():
        findings = monitoring.findings(monitoring.look())
    assert [finding.code for finding in findings] == ["redis_down"]


# The database.


def test_without_the_database(environ: dict[str, str]) -> None:
    url = f"postgresql://somebody:secret@127.0.0.1:{free_port()}/none"
    with create_app(environ | {"DATABASE_URL": url}).app_context(), pytest.raises(OperationalError) as raised:
        monitoring.look()
    finding = monitoring.away(raised.value)
    assert finding.level == "critical"
    assert "does not answer" in finding.what
    assert "secret" not in finding.what


def test_a_database_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "PATIENCE", 1.0)
    with db.engine.begin() as conn:
        conn.execute(sa.text("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE"))
        with pytest.raises(OperationalError) as raised:
            monitoring.look()
    assert monitoring.away(raised.value).what == "The database takes more than 1 seconds to answer."


def test_a_database_that_was_not_migrated(environ: dict[str, str], services: Any) -> None:
    url = services.database("not_migrated")
    with create_app(environ | {"DATABASE_URL": url}).app_context():
        with pytest.raises(ProgrammingError) as raised:
            monitoring.look()
        db.engine.dispose()
    assert monitoring.away(raised.value).do == "Migrate it: `flask db upgrade`."


def test_it_needs_no_connection_of_the_pool(app: APIFlask) -> None:
    before = db.engine.pool.checkedout()  # type: ignore[attr-defined]
    with queries.asking():
        assert db.engine.pool.checkedout() == before  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (1, "1 second"),
        (59.9, "59 seconds"),
        (60, "1 minute"),
        (754, "12 minutes"),
        (7199, "119 minutes"),
        (7200, "2 hours"),
        (200000, "2 days"),
    ],
)
def test_spans(seconds: float, words: str) -> None:
    assert span(seconds) == words
