from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from io import BytesIO
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import func, update

from app import jobs, uploads
from app.errors import BadFile, Conflict, InvalidParams, InvalidRequest, NotFound, TooMany
from app.extensions import db
from app.imports import requests
from app.imports.file.dialect import Dialect
from app.imports.requests import Limits
from app.models.imports import APPLY, DRY_RUN, UNDO, Import
from app.models.job import Job
from app.models.upload import Upload
from app.models.user import User

HEADER = b"E-Mail;Full Name;Company;Joined\n"
FILE = HEADER + b"ann@example.org;Ann;Acme;31.01.2026\nbob@example.org;Bob;Acme;28.02.2026\n"
KEY = "members"


@pytest.fixture
def user(app, admin):
    """An administrator, in the app's context."""
    with app.app_context():
        yield db.session.get_one(User, admin.id)


@pytest.fixture
def sent(user) -> Callable[..., Upload]:
    """sent(b"…"): a complete upload of `user`."""

    def send(content: bytes = FILE, name: str = "members.csv") -> Upload:
        upload = uploads.begin(user, name)
        return uploads.complete(uploads.receive(upload, 0, BytesIO(content)))

    return send


def end(job: Job, status: str, *, started: bool = True, **values: Any) -> None:
    """What a worker does at the end."""
    at = func.clock_timestamp()
    changed = {"status": status, "finished_at": at, "started_at": at if started else None} | values
    db.session.execute(update(Job).where(Job.id == job.id).values(**changed))
    db.session.commit()


def applied(user: User, import_: Import, **result: int) -> Job:
    job = requests.request(user, import_, APPLY)
    end(job, "succeeded")
    import_.result = {"read": 2, "inserted": 2} | result
    db.session.commit()
    return job


def test_a_file_is_understood_and_its_columns_are_matched(user, sent):
    import_ = requests.create(user, KEY, sent())
    dialect = Dialect.of(import_.dialect)
    assert (dialect.delimiter, dialect.dates, dialect.header) == (";", "dmy", True)
    assert import_.header == ["E-Mail", "Full Name", "Company", "Joined"]
    assert import_.mapping["email"] == 0
    assert import_.mode == "upsert"
    assert requests.reasons(import_)["delimiter"].sure
    assert "email" in import_.mapping


def test_what_is_given_goes_before_what_is_found(user, sent):
    import_ = requests.create(
        user,
        KEY,
        sent(),
        mode="insert",
        mapping={"name": "E-Mail"},
        dialect={"dates": "mdy"},
        limits=Limits(reject_limit=None, rate=500),
    )
    assert import_.mode == "insert"
    # A column of the file goes to one place.
    assert (import_.mapping["name"], import_.mapping["email"]) == (0, None)
    assert import_.dialect["dates"] == "mdy"
    assert (import_.reject_limit, import_.reject_percent, import_.rate) == (None, 5, 500)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"mode": "replace"}, "mode"),
        ({"mapping": {"nope": 0}}, "mapping"),
        ({"mapping": {"email": "Nope"}}, "mapping.email"),
        ({"dialect": {"delimiter": "ab"}}, "dialect.delimiter"),
        ({"dialect": {"encoding": "base64"}}, "dialect.encoding"),
        ({"dialect": {"skip": -1}}, "dialect.skip"),
        ({"dialect": {"colour": "red"}}, "dialect.colour"),
        ({"limits": Limits(reject_percent=101)}, "reject_percent"),
        ({"limits": Limits(rate=0)}, "rate"),
    ],
)
def test_wrong_values_are_told_by_name_and_change_nothing(user, sent, given, name):
    with pytest.raises(InvalidParams) as caught:
        requests.create(user, KEY, sent(), **given)
    assert name in caught.value.errors
    db.session.rollback()
    assert db.session.scalar(db.select(func.count()).select_from(Import)) == 0


def test_an_upload_must_be_complete(user):
    with pytest.raises(Conflict, match="receiving"):
        requests.create(user, KEY, uploads.begin(user, "members.csv"))


def test_importers_are_given_out_by_role(app, sent, user, person):
    nobody = person("guest@example.org", "guest")
    guest = db.session.get_one(User, nobody.id)
    with pytest.raises(NotFound):
        requests.create(guest, KEY, sent())
    with pytest.raises(NotFound):
        requests.create(user, "nope", sent())


def test_imports_are_their_owner_s_and_the_administrators(user, sent, member):
    import_ = requests.create(user, KEY, sent())
    with pytest.raises(NotFound):
        requests.find(db.session.get_one(User, member.id), import_.id)
    assert requests.find(user, import_.id) is import_
    with pytest.raises(NotFound):
        requests.find(user, uuid4())
    assert requests.listing(user)[0] == [import_]
    assert requests.listing(db.session.get_one(User, member.id))[0] == []


def test_imports_are_listed_in_pages(user, sent):
    upload = sent()
    made = [requests.create(user, KEY, upload) for _ in range(5)][::-1]
    first, cursor = requests.listing(user, limit=2)
    second, after = requests.listing(user, limit=2, before=cursor)
    third, none = requests.listing(user, limit=2, before=after)
    assert [*first, *second, *third] == made
    assert none is None
    with pytest.raises(InvalidRequest):
        requests.listing(user, before="x")


def test_corrections_are_remembered_for_the_next_file_of_the_same_header(user, sent):
    import_ = requests.create(user, KEY, sent())
    chosen = dict.fromkeys(import_.mapping) | {"email": 0, "name": 1, "company_id": 2}
    requests.revise(user, import_, mapping=chosen, dialect={"dates": "mdy"})
    assert "dates" not in requests.reasons(import_)
    again = requests.create(user, KEY, sent(HEADER + b"cid@example.org;Cid;Acme;01.02.2026\n"))
    assert again.mapping == chosen
    assert again.dialect["dates"] == "mdy"
    # Another header is another file.
    other = requests.create(user, KEY, sent(b"E-Mail;Name\ncid@example.org;Cid\n"))
    assert other.mapping != chosen


def test_what_the_cells_leave_no_doubt_about_is_not_remembered(user, sent):
    """A file whose days could be either says nothing about the next one, which says it itself."""
    header = b"E-Mail;Full Name;Company;Joined;Amount\n"
    first = requests.create(user, KEY, sent(header + b"cid@example.org;Cid;Acme;01/02/2026;1\n"))
    requests.revise(user, first, dialect={"dates": "mdy", "decimal": "."})
    unlike = requests.create(user, KEY, sent(header + b"cid@example.org;Cid;Acme;13/02/2026;1,50\n"))
    assert (unlike.dialect["dates"], unlike.dialect["decimal"]) == ("dmy", ",")
    silent = requests.create(user, KEY, sent(header + b"cid@example.org;Cid;Acme;;\n"))
    assert (silent.dialect["dates"], silent.dialect["decimal"]) == ("mdy", ".")


def test_another_way_to_read_may_give_other_columns(user, sent):
    import_ = requests.create(user, KEY, sent())
    requests.revise(user, import_, dialect={"delimiter": "\t"})
    assert import_.header == ["E-Mail;Full Name;Company;Joined"]
    requests.revise(user, import_, dialect={"delimiter": ";", "header": False})
    assert import_.header == ["Column 1", "Column 2", "Column 3", "Column 4"]


def test_what_a_dry_run_found_is_forgotten_with_a_change(user, sent):
    import_ = requests.create(user, KEY, sent())
    import_.forecast = {"read": 2}
    requests.revise(user, import_, mode="insert")
    assert import_.forecast is None


def test_a_step_is_a_queued_job(user, sent):
    import_ = requests.create(user, KEY, sent())
    job = requests.request(user, import_, DRY_RUN)
    assert (job.kind, job.step, job.import_id, job.queue) == ("import", DRY_RUN, import_.id, "high")
    assert job.status == "queued"
    assert jobs.as_json(job)["import"]["step"] == DRY_RUN


def test_one_step_at_a_time(user, sent):
    import_ = requests.create(user, KEY, sent())
    requests.request(user, import_, DRY_RUN)
    for ask in (
        lambda: requests.request(user, import_, APPLY),
        lambda: requests.request(user, import_, DRY_RUN),
        lambda: requests.revise(user, import_, mode="insert"),
    ):
        with pytest.raises(Conflict, match="Wait for it"):
            ask()


def test_the_mapping_must_be_whole_before_a_step(user, sent):
    import_ = requests.create(user, KEY, sent(b"a,b\n1,2\n"))
    with pytest.raises(InvalidParams) as caught:
        requests.request(user, import_, DRY_RUN)
    assert "mapping" in caught.value.errors
    with pytest.raises(InvalidRequest, match="no step"):
        requests.request(user, import_, "again")


def test_an_applied_import_is_closed(user, sent):
    import_ = requests.create(user, KEY, sent())
    applied(user, import_)
    for step in (DRY_RUN, APPLY):
        with pytest.raises(Conflict, match="applied already"):
            requests.request(user, import_, step)
    with pytest.raises(Conflict):
        requests.revise(user, import_, mode="insert")


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_one_that_stopped_is_gone_on_with_as_it_is(user, sent, status):
    import_ = requests.create(user, KEY, sent())
    job = requests.request(user, import_, APPLY)
    end(job, status)
    with pytest.raises(Conflict, match="go on with it"):
        requests.revise(user, import_, mode="insert")
    db.session.rollback()
    assert requests.retry(user, job).id == job.id
    db.session.refresh(job)
    assert job.status == "queued"


def test_attempts_of_a_new_job_count_on_from_those_of_the_one_that_stopped(user, sent):
    """The target lets only higher ones write."""
    import_ = requests.create(user, KEY, sent())
    job = requests.request(user, import_, APPLY)
    job.attempt = 2
    end(job, "failed")
    new = requests.request(user, import_, APPLY)
    assert (new.id == job.id, new.attempt, new.forgiven) == (False, 2, 2)


def test_one_that_was_withdrawn_before_it_began_may_be_corrected(user, sent):
    import_ = requests.create(user, KEY, sent())
    requests.cancel(requests.request(user, import_, APPLY))
    requests.revise(user, import_, mode="insert")
    requests.request(user, import_, APPLY)


def test_a_retry_is_no_second_way_to_two_at_once(user, sent):
    import_ = requests.create(user, KEY, sent())
    first = requests.request(user, import_, DRY_RUN)
    end(first, "failed")
    requests.request(user, import_, DRY_RUN)
    with pytest.raises(Conflict):
        requests.retry(user, first)


def test_undo_follows_what_was_applied_once_and_in_time(user, sent):
    import_ = requests.create(user, KEY, sent())
    with pytest.raises(Conflict, match="nothing to undo"):
        requests.request(user, import_, UNDO)
    job = applied(user, import_)
    undo = requests.request(user, import_, UNDO)
    assert undo.step == UNDO
    with pytest.raises(Conflict, match="Wait for it"):
        requests.request(user, import_, UNDO)
    end(undo, "failed")
    undo = requests.request(user, import_, UNDO)
    end(undo, "succeeded")
    with pytest.raises(Conflict, match="undone already"):
        requests.request(user, import_, UNDO)
    assert job.status == "succeeded"


def test_undo_ends_with_the_retention(user, sent):
    import_ = requests.create(user, KEY, sent())
    job = applied(user, import_)
    end(job, "succeeded", finished_at=func.clock_timestamp() - timedelta(hours=25))
    with pytest.raises(Conflict, match="no longer kept"):
        requests.request(user, import_, UNDO)


def test_an_import_that_changed_nothing_has_nothing_to_undo(user, sent):
    import_ = requests.create(user, KEY, sent())
    applied(user, import_, inserted=0, unchanged=2)
    with pytest.raises(Conflict, match="changed nothing"):
        requests.request(user, import_, UNDO)


def test_what_a_worker_that_died_left_behind_can_be_undone(user, sent):
    """It told nothing, and what was told of an attempt before it is not true any more."""
    import_ = requests.create(user, KEY, sent())
    job = requests.request(user, import_, APPLY)
    import_.result = {"read": 1, "refused": 1}
    end(job, "failed")
    assert requests.retry(user, job).status == "queued"
    assert db.session.get_one(Import, import_.id).result is None
    job.attempt = 2
    end(job, "failed")
    assert requests.request(user, import_, UNDO).status == "queued"


def test_the_same_key_gives_the_same_job(user, sent):
    upload = sent()
    job = requests.ask(user, KEY, upload, APPLY, idempotency_key="once")
    again = requests.ask(user, KEY, upload, APPLY, idempotency_key="once")
    assert again.id == job.id
    assert again.replayed
    assert db.session.scalar(db.select(func.count()).select_from(Import)) == 1
    with pytest.raises(Conflict, match="another request"):
        requests.ask(user, KEY, upload, DRY_RUN, idempotency_key="once")


def test_neither_import_nor_job_is_there_when_the_step_is_refused(user, sent):
    with pytest.raises(InvalidParams):
        requests.ask(user, KEY, sent(b"a,b\n1,2\n"), APPLY)
    db.session.rollback()
    assert db.session.scalar(db.select(func.count()).select_from(Import)) == 0


def test_unfinished_imports_count_like_exports(user, sent, app, monkeypatch):
    from dataclasses import replace

    monkeypatch.setitem(app.config, "WAYBILL", replace(app.config["WAYBILL"], user_running_limit=1))
    upload = sent()
    requests.ask(user, KEY, upload, DRY_RUN)
    with pytest.raises(TooMany):
        requests.ask(user, KEY, upload, DRY_RUN)


def test_pause_and_resume(user, sent):
    job = requests.ask(user, KEY, sent(), APPLY)
    requests.pause(job)
    assert db.session.scalar(db.select(Job.paused_at)) is not None
    with pytest.raises(Conflict, match="paused already"):
        requests.pause(job)
    requests.resume(job)
    assert db.session.scalar(db.select(Job.paused_at)) is None
    with pytest.raises(Conflict, match="going on already"):
        requests.resume(job)
    end(job, "succeeded")
    with pytest.raises(Conflict, match="succeeded already"):
        requests.pause(job)


def test_exports_do_not_pause(user, demo):
    with pytest.raises(Conflict, match="Only imports"):
        requests.pause(jobs.request_export(user, "all_tasks", {}))


def test_a_begun_import_that_waits_is_cancelled_by_a_worker(user, sent):
    job = requests.ask(user, KEY, sent(), APPLY)
    end(job, "queued", finished_at=None)
    requests.pause(job)
    requests.cancel(job)
    db.session.refresh(job)
    assert (job.status, job.paused_at) == ("queued", None)
    assert job.cancel_requested_at is not None


def test_refused_rows_come_back_under_their_parent(user, sent):
    parent = requests.create(user, KEY, sent(), mode="insert", dialect={"dates": "mdy"})
    header = HEADER.strip() + b";line;column;code;message\n"
    child = requests.correct(user, parent, sent(header + b"ann@example.org;Ann;Acme;01.02.2026;2;;x;y\n"))
    assert child.parent_id == parent.id
    assert child.mode == "insert"
    assert child.mapping == parent.mapping
    assert child.dialect["dates"] == "mdy"
    assert requests.corrections(parent) == [child]


def test_one_that_stopped_for_its_limits_may_go_on_with_others(user, sent):
    import_ = requests.create(user, KEY, sent())
    job = requests.request(user, import_, APPLY)
    with pytest.raises(Conflict):
        requests.revise(user, import_, limits=Limits(reject_limit=None))
    db.session.rollback()
    end(job, "failed")
    requests.revise(user, import_, limits=Limits(reject_limit=None))
    db.session.refresh(import_)
    assert import_.reject_limit is None


def test_a_file_of_a_million_columns_is_refused(user, sent):
    with pytest.raises(BadFile, match="300,001 columns"):
        requests.create(user, KEY, sent(b"," * 300_000 + b"\n"))
    # Nor can one be read so.
    import_ = requests.create(user, KEY, sent(FILE))
    import_.upload = sent(b"name" + b"|x" * 20_000 + b"\n", "wide.csv")
    with pytest.raises(BadFile):
        requests.revise(user, import_, dialect={"delimiter": "|"})


def test_times_are_those_of_the_sender_s_clock(user, sent):
    user.time_zone = "Asia/Tokyo"
    db.session.commit()
    import_ = requests.create(user, KEY, sent())
    assert import_.dialect["zone"] == "Asia/Tokyo"
    requests.revise(user, import_, dialect={"zone": "Europe/Berlin"})
    assert requests.create(user, KEY, sent()).dialect["zone"] == "Europe/Berlin"
    with pytest.raises(InvalidParams):
        requests.revise(user, import_, dialect={"zone": "Mars/Phobos"})


def test_of_two_at_once_one_gets_through(app, user, sent):
    import_id, user_id = requests.create(user, KEY, sent()).id, user.id
    db.session.commit()
    ready, outcomes = threading.Barrier(4), []

    def press() -> None:
        with app.app_context():
            me = db.session.get_one(User, user_id)
            found = requests.find(me, import_id)
            ready.wait()
            try:
                outcomes.append(requests.request(me, found, APPLY).status)
            except Conflict:
                outcomes.append("conflict")

    threads = [threading.Thread(target=press) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["conflict", "conflict", "conflict", "queued"]
