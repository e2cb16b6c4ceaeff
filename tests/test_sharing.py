"""One file for several jobs: who may join or reuse what, and what becomes of those who wait."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from textwrap import dedent
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, update

from app import events, exports, jobs, leases, sharing
from app.errors import TooMany
from app.extensions import db, redis_client
from app.models import Artifact, Delivery, Job, User
from app.models.job import CANCELLED, FAILED, QUEUED, SUCCEEDED
from app.models.user import Role
from app.reports import Registry
from app.storage import Storage
from app.sweep import sweep

ROWS = "SELECT i AS id FROM generate_series(1, 10) AS i WHERE i > :least"
LEAST = '[params.least]\ntype = "int"\ndefault = 0'


@pytest.fixture(autouse=True)
def context(app: Any) -> Iterator[None]:
    with app.app_context():
        for stat in list(storage().list("")):
            storage().delete(stat.key)
        yield
        db.session.remove()


@pytest.fixture(autouse=True)
def reports(app: Any, context: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """reports(name=text): the reports there are, beside those built in."""

    def write(**texts: str) -> None:
        for name, text in texts.items():
            (tmp_path / name.replace("__", ".")).write_text(dedent(text).lstrip())
        registry = Registry.load(str(tmp_path), sources=("demo",))
        registry.check()
        monkeypatch.setitem(app.extensions, "waybill.reports", registry)

    write(
        rows__sql=f'/*\ntitle = "Rows"\n{LEAST}\n*/\n{ROWS}',
        kept__sql=f'/*\ntitle = "Kept"\nfresh_for = "10 minutes"\n{LEAST}\n*/\n{ROWS}',
        mine__sql='/*\ntitle = "Mine"\nfresh_for = "1 hour"\n*/\nSELECT :current_user_email AS me',
        broken__sql='/*\ntitle = "Broken"\n*/\nSELECT 1 / (i - i) AS none FROM generate_series(1, 3) AS i',
    )
    return write


def ask(user: Any, key: str = "rows", **options: Any) -> Job:
    db.session.remove()
    user = db.session.merge(user)
    return jobs.request_export(user, key, options.pop("params", {}), **options)


def attempt(job: Job) -> Job:
    """Run one attempt of the job here."""
    job_id = job.id
    db.session.remove()
    lease = leases.claim(job_id)
    assert lease is not None
    exports.run(lease)
    return again(job_id)


def again(job_id: UUID) -> Job:
    db.session.remove()
    return db.session.get_one(Job, job_id)


def artifact(job: Job) -> Artifact:
    found = jobs.artifact_of(job)
    assert found is not None
    return found


def storage() -> Storage:
    from flask import current_app

    opened: Storage = current_app.extensions["waybill.storage"]
    return opened


def text(job: Job) -> str:
    return "\n".join(line.text for line in events.after(job.id, 0))


def mails(job: Job) -> list[str]:
    return list(db.session.scalars(select(Delivery.name).where(Delivery.job_id == job.id)))


def expire(job: Job) -> None:
    late = update(Artifact).where(Artifact.job_id == job.id).values(expires_at=db.func.now())
    db.session.execute(late)
    db.session.commit()


# --- joining ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("running", [False, True])
def test_the_same_export_under_way_is_joined(running: bool, member: User, other: User) -> None:
    leader = ask(member).id
    lease = leases.claim(leader) if running else None
    follower = ask(other).id
    assert (again(follower).follows_id, again(follower).sharing) == (leader, "joined")
    assert redis_client().llen("dramatiq:default") == 1
    assert leases.claim(follower) is None
    lease = lease or leases.claim(leader)
    assert lease is not None
    exports.run(lease)
    made, shared = again(leader), again(follower)
    assert (shared.status, shared.attempt, shared.progress_done) == (SUCCEEDED, 0, 10)
    assert artifact(shared).key == artifact(made).key
    assert artifact(shared).sha256 == artifact(made).sha256
    assert jobs.link_url(artifact(shared)) != jobs.link_url(artifact(made))
    assert mails(shared) == mails(made) == ["ready"]
    assert "other@" not in text(made)
    assert "member@" not in text(shared)
    assert jobs.as_json(shared)["sharing"] == "joined"
    assert jobs.as_json(made)["sharing"] is None


@pytest.mark.parametrize(
    "options",
    [{"fresh": True}, {"params": {"least": 3}}, {"compression": "gzip"}, {"dialect": "spreadsheet"}],
)
def test_what_differs_is_made_on_its_own(options: dict[str, Any], member: User, other: User) -> None:
    ask(member)
    assert ask(other, **options).follows_id is None


def test_a_changed_report_is_another_one(reports: Callable[..., None], member: User, other: User) -> None:
    ask(member)
    reports(rows__sql=f'/*\ntitle = "Rows"\n{LEAST}\n*/\n{ROWS} ORDER BY id')
    assert ask(other).follows_id is None


def test_what_depends_on_who_asks_is_shared_with_nobody_else(member: User, other: User) -> None:
    first = ask(member, "mine").id
    assert ask(other, "mine").follows_id is None
    assert ask(member, "mine").follows_id == first


@pytest.mark.parametrize("personal", ["", "personal = False"])
def test_a_python_report_is_shared_when_its_author_says_so(
    personal: str, reports: Callable[..., None], member: User, other: User
) -> None:
    reports(
        counted__py=f"""
        from app.reports import Column, Report
        class Counted(Report):
            title = "Counted"
            columns = (Column("id"),)
            {personal}
            def rows(self, params, context):
                yield [1]
        """
    )
    first = ask(member, "counted").id
    assert ask(other, "counted").follows_id == (first if personal else None)


def test_of_many_who_ask_at_once_one_is_read(app: Any, member: User) -> None:
    asked: list[UUID | None] = []

    def one() -> None:
        with app.app_context():
            asked.append(jobs.request_export(db.session.merge(member), "rows", {}).follows_id)
            db.session.remove()

    threads = [threading.Thread(target=one) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(asked) == 5
    assert asked.count(None) == 1


def test_a_follower_sees_the_progress_of_its_leader(member: User, other: User) -> None:
    leader, follower = ask(member).id, ask(other).id
    lease = leases.claim(leader)
    assert lease is not None
    lease.progress(4, 10)
    lease.ticker.flush()
    assert (again(follower).progress_done, again(follower).progress_total) == (4, 10)
    assert jobs.queue_position(again(follower)) is None


@pytest.mark.parametrize("ending", ["failed", "cancelled", "withdrawn"])
def test_a_leader_without_a_file_leaves_the_first_to_itself(
    ending: str, member: User, other: User, admin: User
) -> None:
    key = "broken" if ending == "failed" else "rows"
    leader, first, second = (ask(user, key).id for user in (member, other, admin))
    if ending == "withdrawn":
        jobs.cancel(again(leader))
    else:
        lease = leases.claim(leader)
        assert lease is not None
        if ending == "cancelled":
            jobs.cancel(again(leader))
            lease.cancelled("Cancelled. Nothing was published.")
            sharing.settle(leader)
        else:
            exports.run(lease)
    assert again(leader).status == (FAILED if ending == "failed" else CANCELLED)
    assert (again(first).status, again(first).follows_id, again(first).sharing) == (QUEUED, None, None)
    assert (again(second).status, again(second).follows_id) == (QUEUED, first)
    assert "made anew" in text(again(first))
    if ending != "failed":
        assert attempt(again(first)).status == SUCCEEDED
        assert again(second).status == SUCCEEDED


def test_a_follower_who_lost_the_right_gets_nothing(member: User, other: User) -> None:
    leader, follower = ask(member).id, ask(other).id
    db.session.execute(update(User).where(User.id == other.id).values(active=False))
    db.session.commit()
    attempt(again(leader))
    assert jobs.artifact_of(again(follower)) is None
    assert "not for you any more" in text(again(follower))
    assert "came to no file" not in text(again(follower))
    assert attempt(again(follower)).error_code == "not_allowed"


def test_a_role_that_was_taken_away_counts(member: User, person: Callable[..., User]) -> None:
    helper = person("both@example.org", "member")
    leader, follower = ask(member).id, ask(helper).id
    with db.session.begin_nested():
        user = db.session.get_one(User, helper.id)
        user.roles = [
            role for role in db.session.scalars(select(Role)) if role.name not in ("member", "admin")
        ]
    db.session.commit()
    attempt(again(leader))
    assert again(follower).status == QUEUED


def test_the_sweep_finds_whom_a_dead_worker_forgot(member: User, other: User) -> None:
    leader, follower = ask(member).id, ask(other).id
    db.session.execute(update(Job).where(Job.id == leader).values(status=FAILED, finished_at=db.func.now()))
    db.session.commit()
    sweep()
    assert again(follower).follows_id is None
    assert attempt(again(follower)).status == SUCCEEDED


def test_cancelling_a_follower_leaves_its_leader_alone(member: User, other: User) -> None:
    leader, follower = ask(member).id, ask(other).id
    jobs.cancel(again(follower))
    assert attempt(again(leader)).status == SUCCEEDED
    assert again(follower).status == CANCELLED
    assert jobs.retry(again(follower)).follows_id is None


# --- reusing ----------------------------------------------------------------------------------------------


def test_a_fresh_file_is_handed_over_at_once_and_without_a_mail(member: User, other: User) -> None:
    made = attempt(ask(member, "kept")).id
    shared = ask(other, "kept").id
    job = again(shared)
    assert (job.status, job.sharing, job.follows_id, job.attempt) == (SUCCEEDED, "reused", made, 0)
    assert artifact(job).key == artifact(again(made)).key
    assert mails(job) == []
    assert "made before" in text(job)
    told = jobs.as_json(job)
    assert told["sharing"] == "reused"
    assert told["artifact"]["snapshot_at"].endswith("Z")
    assert redis_client().llen("dramatiq:default") == 1


def test_without_fresh_for_a_file_is_made_anew(member: User, other: User) -> None:
    attempt(ask(member))
    assert ask(other).status == QUEUED


def test_fresh_makes_a_new_file(member: User) -> None:
    made = attempt(ask(member, "kept"))
    assert ask(member, "kept", fresh=True).status == QUEUED
    made = again(made.id)
    assert jobs.again(made.owner, made).status == QUEUED


def test_data_grow_old_from_when_they_were_read(member: User, other: User, admin: User) -> None:
    """However often a file was handed on: its age counts, not that of the last handing over."""
    made = attempt(ask(member, "kept"))
    shared = ask(other, "kept").id
    for job in (made, again(shared)):
        found = artifact(job)
        read = jobs.database_now() - timedelta(minutes=11)
        found.receipt = found.receipt | {"snapshot_at": read.isoformat()}
        db.session.commit()
    assert ask(admin, "kept").sharing is None


@pytest.mark.parametrize("gone", ["expired", "removed"])
def test_a_file_that_is_gone_is_handed_to_nobody(gone: str, member: User, other: User) -> None:
    made = attempt(ask(member, "kept"))
    values = {"expires_at": db.func.now()} if gone == "expired" else {"removed_at": db.func.now()}
    db.session.execute(update(Artifact).where(Artifact.job_id == made.id).values(values))
    db.session.commit()
    assert ask(other, "kept").status == QUEUED


def test_handing_over_counts_against_no_limit(
    app: Any, member: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    attempt(ask(member, "kept"))
    monkeypatch.setitem(app.config, "WAYBILL", replace(app.config["WAYBILL"], user_running_limit=0))
    assert ask(member, "kept").status == SUCCEEDED
    with pytest.raises(TooMany):
        ask(member, "rows")


def test_the_same_key_gives_the_same_shared_job(member: User) -> None:
    attempt(ask(member, "kept"))
    first = ask(member, "kept", idempotency_key="k").id
    assert ask(member, "kept", idempotency_key="k").id == first


# --- the bytes --------------------------------------------------------------------------------------------


def test_the_bytes_go_with_the_last_who_has_them(member: User, other: User) -> None:
    made = attempt(ask(member, "kept"))
    shared = again(ask(other, "kept").id)
    key = artifact(made).key
    expire(again(made.id))
    sweep()
    assert artifact(again(made.id)).removed_at is not None
    assert artifact(again(shared.id)).removed_at is None
    assert storage().stat(key).bytes == artifact(again(shared.id)).bytes
    expire(again(shared.id))
    sweep()
    assert artifact(again(shared.id)).removed_at is not None
    assert list(storage().list("artifacts/")) == []


def test_a_revoked_link_takes_nobody_elses(member: User, other: User) -> None:
    made = attempt(ask(member, "kept"))
    shared = again(ask(other, "kept").id)
    artifact(again(made.id)).link_revoked_at = jobs.database_now()
    db.session.commit()
    assert jobs.link_url(artifact(again(made.id))) is None
    assert jobs.link_url(artifact(again(shared.id))) is not None
