"""An export in parts, its workers killed at every checkpoint: the file is that of an undisturbed run.

A worker is a process of its own. A trigger makes the database hold its breath at one boundary; there the
worker is killed, its lease is run out, and the next one goes on.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, update

from app import events, exports, jobs, leases, storage
from app.exports import parts as making
from app.extensions import db
from app.models import Job, Part, User
from app.reports import Report, registry
from tests.chaos.killing import held_breath, kill_at, run_out, worker

PARTS = 4
# Where a worker may be killed: before a part is done, after it, when it is joined, and before the whole is
# published.
BOUNDARIES = [
    *((f"part {number} {status}", f"NEW.number = {number} AND NEW.status = '{status}'", "parts")
      for number in range(1, PARTS + 1) for status in ("running", "done")),
    *((f"part {number} joined", f"NEW.number = {number} AND NEW.key LIKE '%/whole-%'", "parts")
      for number in range(1, PARTS + 1)),
    ("publishing", "true", "artifacts"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def context(app: Any, demo: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(
        app.config, "WAYBILL", replace(app.config["WAYBILL"], part_rows=500, attempts_limit=99)
    )
    with app.app_context():
        yield
        db.session.remove()


@pytest.fixture
def ask(member: User) -> Callable[..., UUID]:
    def ask(**options: Any) -> UUID:
        return UUID(str(jobs.request_export(db.session.merge(member), "all_tasks", {}, **options).id))

    return ask


@pytest.fixture
def undisturbed(ask: Callable[..., UUID]) -> bytes:
    """The file of one stream."""
    content = _content(_export(ask(), whole=True))
    assert content.count(b"\n") >= 2000
    return content


def test_parts_make_the_same_file(ask: Callable[..., UUID], undisturbed: bytes) -> None:
    job = _export(ask())
    assert _content(job) == undisturbed
    found = jobs.artifact_of(job)
    assert found is not None
    assert len(found.receipt["parts"]) == PARTS
    assert sum(part["rows"] for part in found.receipt["parts"]) == found.rows == 2000
    assert len({part["snapshot_at"] for part in found.receipt["parts"]}) == 1
    stored = [stat.key for stat in storage.current().list(f"artifacts/{job.id}/")]
    assert sorted(stored) == [found.key, f"{found.key}.receipt.json"]  # the parts are gone
    assert (job.progress_done, job.progress_total) == (2000, 2000)


@pytest.mark.parametrize(("where", "condition", "table"), BOUNDARIES, ids=[where for where, *_ in BOUNDARIES])
def test_a_worker_killed_at_a_boundary(
    where: str, condition: str, table: str, ask: Callable[..., UUID], undisturbed: bytes, app: Any
) -> None:
    job_id = ask()
    kill_at(table, condition, app, job_id)
    finished = _finished(job_id)
    run_out(job_id)
    job = _export(job_id)
    assert job.attempt == 2
    assert _content(job) == undisturbed
    kept = [part for part in _receipt(job) if part["number"] in finished]
    assert len({part["snapshot_at"] for part in _receipt(job)}) == (2 if 0 < len(kept) < PARTS else 1)
    if finished:
        assert any(f"{len(finished)} of {PARTS} parts are finished" in line for line in _log(job_id))


def test_killed_again_and_again(ask: Callable[..., UUID], undisturbed: bytes, app: Any) -> None:
    """A seeded row of kills over one job: every attempt goes on where the last one fell."""
    seed = 20_260
    fate = random.Random(seed)
    job_id = ask()
    for _ in range(5):
        _, condition, table = fate.choice(BOUNDARIES)
        with held_breath(table, condition) as boundary:
            pid = worker(app, job_id)
            if boundary.wait(5):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            boundary.forget()
        if db.session.scalar(select(Job.status).where(Job.id == job_id)) == "succeeded":
            break
        run_out(job_id)
        db.session.rollback()
    job = db.session.get_one(Job, job_id)
    if job.status != "succeeded":
        job = _export(job_id)
    assert _content(job) == undisturbed, f"seed {seed}"


def test_a_helper_makes_parts_and_may_die(ask: Callable[..., UUID], undisturbed: bytes, app: Any) -> None:
    job_id = ask()
    holds = (
        held_breath("parts", "NEW.status = 'running' AND NEW.number = 2"),
        held_breath("parts", "NEW.status = 'done' AND NEW.number = 3"),
    )
    with holds[0] as second, holds[1] as third:
        conductor = worker(app, job_id)
        second.wait()
        helper = worker(app, job_id, helping=True)
        third.wait()
        os.kill(helper, signal.SIGKILL)
        os.waitpid(helper, 0)
        third.forget()
        run_out(job_id, Part)
        second.release()
        os.waitpid(conductor, 0)
    job = db.session.get_one(Job, job_id)
    assert (job.status, job.attempt) == ("succeeded", 1)
    assert _content(job) == undisturbed
    made = {part.number: part.claim for part in db.session.scalars(select(Part))}
    assert made[3] > made[4]  # taken once more than its neighbour


def test_help_that_finds_no_hand_free_goes_on_to_another_process(ask: Callable[..., UUID], app: Any) -> None:
    job_id = ask()
    broker = app.extensions["waybill.broker"]
    waiting = (broker.client, f"{broker.namespace}:default.DQ.msgs")

    def passed_on() -> int:
        return int(waiting[0].hlen(waiting[1]))

    with held_breath("parts", "NEW.status = 'running' AND NEW.number = 1") as first:
        conductor = worker(app, job_id)
        assert first.wait()
        before = passed_on()
        with making.hands.of(job_id), making.hands.of(job_id):
            making.help_out(job_id, 1)
        assert passed_on() == before + 1
        first.release()
        os.waitpid(conductor, 0)
    with making.hands.of(job_id), making.hands.of(job_id):
        making.help_out(job_id, 1)
    assert passed_on() == before + 1


def test_a_report_may_demand_one_snapshot(
    ask: Callable[..., UUID], undisturbed: bytes, app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    report: Report = registry().get("all_tasks")
    monkeypatch.setattr(report, "consistency", "snapshot")
    job_id = ask()
    kill_at("parts", "NEW.status = 'done' AND NEW.number = 3", app, job_id)
    assert _finished(job_id) == [1, 2]
    run_out(job_id)
    job = _export(job_id)
    assert _content(job) == undisturbed
    assert len({part["snapshot_at"] for part in _receipt(job)}) == 1


@pytest.mark.parametrize("joined", [False, True], ids=["an object of its own", "in the growing file"])
@pytest.mark.parametrize("damage", ["missing", "shorter", "changed"])
def test_a_part_that_is_not_what_was_written_is_made_again(
    damage: str, joined: bool, ask: Callable[..., UUID], undisturbed: bytes, app: Any
) -> None:
    job_id = ask()
    # The first part is known to be where it is when the joiner stands just before it, or before the next one.
    kill_at("parts", f"NEW.number = {1 + joined} AND NEW.key LIKE '%/whole-%'", app, job_id)
    assert ("/whole-" in _damage(job_id, damage)) is joined
    run_out(job_id)
    assert _content(_export(job_id)) == undisturbed
    assert any("Part 1 is not what was written" in line for line in _log(job_id))


def test_gzip_parts_are_one_gzip_file(ask: Callable[..., UUID], undisturbed: bytes) -> None:
    import gzip

    assert gzip.decompress(_content(_export(ask(compression="gzip")))) == undisturbed


def test_trying_again_reads_anew(ask: Callable[..., UUID], app: Any) -> None:
    job_id = ask()
    kill_at("parts", "NEW.status = 'done' AND NEW.number = 2", app, job_id)
    db.session.execute(update(Job).values(status="failed", lease_expires_at=None))
    db.session.commit()
    jobs.retry(db.session.get_one(Job, job_id))
    assert db.session.scalars(select(Part)).all() == []


def _export(job_id: UUID, *, whole: bool = False) -> Job:
    """One attempt, here. `whole`: in one stream."""
    db.session.remove()
    lease = leases.claim(job_id)
    assert lease is not None
    with pytest.MonkeyPatch.context() as patch:
        if whole:
            patch.setattr(making, "make", lambda *_: None)
        exports.run(lease)
    db.session.remove()
    job = db.session.get_one(Job, job_id)
    assert job.status == "succeeded", _log(job_id)
    return job


def _finished(job_id: UUID) -> list[int]:
    db.session.rollback()
    done = select(Part.number).where(Part.job_id == job_id, Part.status == "done")
    return list(db.session.scalars(done.order_by(Part.number)))


def _damage(job_id: UUID, how: str) -> str:
    """Spoil what is stored of the first part; the object's key."""
    part = db.session.scalars(select(Part).where(Part.job_id == job_id, Part.number == 1)).one()
    assert part.key is not None
    kept = b"".join(storage.current().open(part.key))
    storage.current().delete(part.key)
    changed = {"shorter": kept[: part.start + part.bytes - 1], "changed": b"X" + kept[1:]}.get(how)
    if changed is not None:
        with storage.current().writer(part.key, content_type="x", filename="x") as writer:
            writer.write(changed)
            writer.commit()
    return part.key


def _content(job: Job) -> bytes:
    found = jobs.artifact_of(job)
    assert found is not None
    return b"".join(storage.current().open(found.key))


def _receipt(job: Job) -> list[dict[str, Any]]:
    found = jobs.artifact_of(job)
    assert found is not None
    parts: list[dict[str, Any]] = found.receipt["parts"]
    return parts


def _log(job_id: UUID) -> list[str]:
    return [line.text for line in events.after(job_id, 0)]
