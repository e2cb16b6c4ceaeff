"""Pages of jobs: the list, one job in each of its states, its log, and what may be done with it."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from apiflask import APIFlask
from flask.testing import FlaskClient

from app.extensions import db
from app.models import Artifact, Delivery, Download, Event, Job, Worker
from app.web.jobs import LINES, View


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def signed_in(client: FlaskClient, auth: Any, member: Any) -> FlaskClient:
    auth.sign_in(member)
    return client


@pytest.fixture
def job(app: APIFlask, member: Any) -> Callable[..., UUID]:
    """job("running", lines=3, …): a job of `member` as it is in that state; its id."""

    def make(status: str = "queued", *, lines: int = 1, owner: Any = member, **values: Any) -> UUID:
        begun = status != "queued"
        defaults = {
            "kind": "export",
            "definition": "all_tasks",
            "title": "All tasks",
            "owner_id": owner.id,
            "status": status,
            "attempt": 1 if begun else 0,
            "created_at": now() - timedelta(seconds=30),
            "started_at": now() - timedelta(seconds=20) if begun else None,
            "finished_at": now() if status in ("succeeded", "failed", "cancelled") else None,
            "last_event": lines,
        }
        with app.app_context():
            made = Job(**defaults | values)
            db.session.add(made)
            db.session.flush()
            for number in range(1, lines + 1):
                db.session.add(
                    Event(job_id=made.id, number=number, level="info", text=f"This is line {number}.")
                )
            db.session.commit()
            return made.id

    return make


@pytest.fixture
def file(app: APIFlask) -> Callable[..., UUID]:
    """file(job_id, rows=0, …): its artifact's row; the id."""

    def make(job_id: UUID, **values: Any) -> UUID:
        defaults = {
            "key": f"artifacts/{job_id}/1.csv",
            "filename": "all-tasks-2026-01-31.csv",
            "content_type": "text/csv",
            "bytes": 85_312_345,
            "rows": 1_000_000,
            "sha256": "ab" * 32,
            "receipt": {"snapshot_at": "2026-01-31T09:15:00+00:00", "attempt": 1},
            "expires_at": datetime.now(UTC) + timedelta(hours=23, minutes=30),
        }
        with app.app_context():
            made = Artifact(job_id=job_id, **defaults | values)
            db.session.add(made)
            db.session.commit()
            return made.id

    return make


@pytest.fixture
def mail(app: APIFlask) -> Callable[..., None]:
    def make(job_id: UUID, name: str = "ready", **values: Any) -> None:
        with app.app_context():
            db.session.add(Delivery(job_id=job_id, name=name, attempt=1, message_id=f"<{uuid4()}>", **values))
            db.session.commit()

    return make


@pytest.fixture
def worker(app: APIFlask) -> Callable[..., None]:
    def make(*queues: str) -> None:
        with app.app_context():
            db.session.add(Worker(id="w", queues=list(queues), threads=1))
            db.session.commit()

    return make


@pytest.fixture
def post(auth: Any) -> Callable[..., Any]:
    def post(client: FlaskClient, path: str) -> Any:
        return client.post(path, data={"csrf_token": auth.csrf(client)})

    return post


@pytest.fixture
def load(app: APIFlask) -> Callable[[UUID], Job]:
    """The job as it is now. Leaves no context open: requests inside it would share who is signed in."""

    def load(job_id: UUID) -> Job:
        with app.app_context():
            found = db.session.get_one(Job, job_id)
            db.session.expunge_all()
            return found

    return load


def shown(text: str) -> str:
    """What a page says, without its markup."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text.replace("</time>", "")))


# --- the list ---------------------------------------------------------------------------------------------


def test_the_first_visit_teaches_the_first_step(signed_in: FlaskClient) -> None:
    page = signed_in.get("/jobs").text
    assert "Your first export starts here" in page
    assert "Pick a report" in page


def test_a_file_that_was_there_is_marked_with_its_age(signed_in: FlaskClient, job: Any, file: Any) -> None:
    job_id = job("succeeded", sharing="reused", columns=["title", "id"])
    file(job_id, receipt={"snapshot_at": (now() - timedelta(minutes=4)).isoformat()})
    page = shown(signed_in.get(f"/jobs/{job_id}").text)
    assert "Made 4 minutes ago." in page
    assert "Make a new one" in page
    assert "made in" not in page
    assert "Columns title, id" in page


def test_a_job_that_joined_shows_how_far_the_file_is(signed_in: FlaskClient, job: Any) -> None:
    leader = job("running")
    job_id = job("queued", follows_id=leader, sharing="joined", progress_done=900, progress_total=3000)
    page = shown(signed_in.get(f"/jobs/{job_id}").text)
    assert "30 % 900 of about 3,000 rows" in page
    assert "The same export was under way already" in page
    assert "in the queue" not in page


def test_the_list_shows_my_jobs_and_nobody_elses(
    signed_in: FlaskClient, job: Any, file: Any, other: Any
) -> None:
    file(job("succeeded", title="Mine", params={"since": "2026-01-01", "status": None}))
    job("running", title="At work", progress_done=1234, progress_total=5000)
    job("queued", title="Theirs", owner=other)
    page = signed_in.get("/jobs").text
    assert "Theirs" not in page
    words = shown(page)
    assert "Mine since 2026-01-01 Succeeded 1,000,000 85.3 MB 20 s just now" in words.replace(
        "30 seconds ago", "just now"
    )
    assert "1,234" in words
    assert 'max="5000" value="1234"' in page
    assert "All 2 Queued 0 Running 1 Succeeded 1" in words
    assert "Everybody" not in words


@pytest.mark.parametrize("path", ["/jobs", "/api/v1/jobs"])
def test_no_list_reads_receipts(
    signed_in: FlaskClient, job: Any, file: Any, statements: list[str], path: str
) -> None:
    members = [{"name": f"{number}.csv", "rows": 1, "bytes": 9} for number in range(50)]
    for _ in range(3):
        file(job("succeeded"), receipt={"snapshot_at": "2026-01-31T09:15:00+00:00", "members": members})
    statements.clear()
    assert signed_in.get(path).status_code == 200
    [asked] = [statement for statement in statements if "FROM artifacts" in statement]
    assert not re.search(r"artifacts\.receipt( AS|,)", asked)
    assert "JOIN" not in asked


def test_nothing_is_promised_behind_an_empty_list(signed_in: FlaskClient) -> None:
    assert "There are others" not in signed_in.get("/jobs?status=failed").text


def test_the_list_is_filtered_by_state(signed_in: FlaskClient, job: Any) -> None:
    job("failed", title="Bad one")
    job("queued", title="Waiting one")
    page = signed_in.get("/jobs?status=failed").text
    assert "Bad one" in page
    assert "Waiting one" not in page
    none = signed_in.get("/jobs?status=cancelled").text
    assert "No job is cancelled" in none
    assert "There are others" in none
    assert signed_in.get("/jobs?status=odd").status_code == 400


def test_the_list_is_paged_by_what_came_before(signed_in: FlaskClient, job: Any) -> None:
    for number in range(60):
        job("queued", title=f"Job {number:02}", created_at=now() - timedelta(minutes=number))
    page = signed_in.get("/jobs").text
    assert "Job 49" in page
    assert "Job 50" not in page
    older = re.search(r'rel="next" href="([^"]+)"', page)
    assert older
    page = signed_in.get(older[1].replace("&amp;", "&")).text
    assert "Job 50" in page
    assert "Job 49" not in page
    assert 'rel="next"' not in page
    assert "Newest" in page
    # Only the first page moves: on others nothing new can appear.
    assert "data-stream-url" not in page
    assert signed_in.get("/jobs?before=nonsense").status_code == 400


def test_admins_may_see_everybodys_jobs(
    client: FlaskClient, auth: Any, admin: Any, job: Any, member: Any, other: Any
) -> None:
    job("queued", title="Theirs", owner=other)
    auth.sign_in(admin)
    assert "Theirs" not in client.get("/jobs").text
    page = client.get("/jobs?everyone=1").text
    assert "Theirs" in page
    assert "other@example.org" in page
    assert "/jobs/events?everyone=1" in page
    assert "Theirs" not in auth.client_of(member).get("/jobs?everyone=1").text


# --- one job ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", "/summary"])
def test_a_job_is_its_owners_and_admins_alone(
    client: FlaskClient, auth: Any, job: Any, other: Any, admin: Any, path: str
) -> None:
    made = job("running")
    assert client.get(f"/jobs/{made}{path}", headers={"Accept": "text/html"}).status_code in (302, 303)
    assert auth.client_of(other).get(f"/jobs/{made}{path}").status_code == 404
    page = auth.client_of(admin).get(f"/jobs/{made}{path}")
    assert page.status_code == 200
    assert "by member@example.org" in shown(page.text)
    assert client.get(f"/jobs/{uuid4()}{path}").status_code in (302, 303, 404)


def test_a_queued_job_says_where_it_stands(signed_in: FlaskClient, job: Any, worker: Any) -> None:
    worker("default")
    line = [job(created_at=now() - timedelta(seconds=30 - place)) for place in range(3)]
    on_low = job(queue="low")
    for number, made in enumerate(line):
        with_position = shown(signed_in.get(f"/jobs/{made}/summary").text)
        assert ("Next in the queue", "2nd in the queue", "3rd in the queue")[number] in with_position
        assert "No worker is listening" not in with_position
    told = shown(signed_in.get(f"/jobs/{on_low}/summary").text)
    assert "No worker is listening. Your export is safe" in told
    assert "the queue is low ; start the Procfile's bulk" in told


def test_a_job_that_waits_for_its_next_attempt_says_when(
    signed_in: FlaskClient, job: Any, worker: Any
) -> None:
    worker("default")
    made = job(attempt=1, next_attempt_at=datetime.now(UTC) + timedelta(minutes=3, seconds=30))
    assert "Tries again in 3 minutes" in shown(signed_in.get(f"/jobs/{made}").text)


def test_a_running_job_shows_its_progress(signed_in: FlaskClient, job: Any) -> None:
    made = job("running", progress_done=250_000, progress_total=1_000_000)
    page = signed_in.get(f"/jobs/{made}").text
    words = shown(page)
    assert "25 %" in words
    assert "250,000 of about 1,000,000 rows" in words
    assert re.search(r"Rate [\d,]+ rows/s Time left about \d+ (s|min)", words)
    assert '<progress class="meter" aria-label="Progress" max="100" value="25">' in page
    assert 'http-equiv="refresh"' in page
    assert "Cancel" in words


def test_who_joined_another_job_is_told_no_rate_of_its_own(signed_in: FlaskClient, job: Any) -> None:
    """The other one's rows since this one was asked for would make a rate that nobody reaches."""
    long_ago = datetime.now(UTC) - timedelta(minutes=1)
    numbers = {"created_at": long_ago, "progress_done": 900, "progress_total": 3000}
    leader = job("running", started_at=long_ago, **numbers)
    follower = job("queued", follows_id=leader, sharing="joined", **numbers)
    assert re.search(r"Rate \d+ rows/s", shown(signed_in.get(f"/jobs/{leader}").text))
    page = signed_in.get(f"/jobs/{follower}").text
    assert "Rate – Time left –" in shown(page)
    assert "data-joined" in page


def test_an_unknown_total_is_no_percent(signed_in: FlaskClient, job: Any) -> None:
    page = signed_in.get(f"/jobs/{job('running', progress_done=1234)}").text
    assert "1,234 rows" in shown(page)
    assert " %" not in shown(page)
    assert '<progress class="meter" aria-label="Progress" >' in page


def test_more_rows_than_were_expected_are_not_over_100_percent(job: Any, load: Any) -> None:
    assert View(load(job("running", progress_done=300, progress_total=200))).percent == 99
    assert View(load(job("running", progress_done=0, progress_total=0))).percent is None


def test_a_job_being_cancelled_says_so(signed_in: FlaskClient, job: Any) -> None:
    words = shown(signed_in.get(f"/jobs/{job('running', cancel_requested_at=now())}").text)
    assert words.count("Cancelling…") == 2
    assert "Cancel this export?" not in words


def test_a_finished_job_shows_its_file_and_receipt(
    app: APIFlask, signed_in: FlaskClient, job: Any, file: Any, mail: Any, member: Any
) -> None:
    made = job("succeeded", params={"since": "2026-01-01", "project": None}, compression="gzip")
    artifact = file(made)
    mail(made, sent_at=now())
    with app.app_context():
        db.session.add(Download(artifact_id=artifact, user_id=member.id, address="10.0.0.9", user_agent="x"))
        db.session.add(Download(artifact_id=artifact, address="203.0.113.7", user_agent="x"))
        db.session.commit()
    page = signed_in.get(f"/jobs/{made}").text
    words = shown(page)
    assert "all-tasks-2026-01-31.csv 1,000,000 rows · 85.3 MB · made in 20 s" in words
    assert re.search(r'href="http://127.0.0.1:8000/d/[\w-]{56}" id="download"', page)
    assert "ab" * 32 in page
    assert 'title="2026-01-31 09:15:00 UTC"' in page
    assert "Created since 2026-01-01" in words
    assert "Left open Project&#39;s name contains" in words
    assert "Expires in 23 hours" in words
    assert "CSV, machine, gzip" in words
    assert "Sent to member@example.org" in words
    assert "Somebody with the link" in words
    assert "from 203.0.113.7" in words
    assert 'http-equiv="refresh"' not in page
    assert "data-stream-url" not in page


def test_an_empty_result_says_so(signed_in: FlaskClient, job: Any, file: Any) -> None:
    made = job("succeeded")
    file(made, rows=0, bytes=61)
    words = shown(signed_in.get(f"/jobs/{made}").text)
    assert "The report returned no rows; the file holds only the header." in words
    assert "0 rows · 61 bytes" in words


def test_an_expired_file_offers_a_new_one(signed_in: FlaskClient, job: Any, file: Any) -> None:
    made = job("succeeded")
    file(made, expires_at=now() - timedelta(hours=2), removed_at=now() - timedelta(hours=1))
    page = signed_in.get(f"/jobs/{made}").text
    assert "Generate again" in page
    assert 'id="download"' not in page
    assert "The receipt stays." in page
    assert "ab" * 32 in page


def test_a_revoked_link_can_be_made_anew(signed_in: FlaskClient, job: Any, file: Any) -> None:
    made = job("succeeded")
    file(made, link_revoked_at=now())
    page = signed_in.get(f"/jobs/{made}").text
    assert f'action="/jobs/{made}/link"' in page
    assert "/d/" not in page
    assert "Its link was revoked" in page


@pytest.mark.parametrize(
    ("values", "words"),
    # Times from now on.
    [
        ({}, "On its way to member@example.org"),
        (
            {"tries": 2, "next_attempt_at": timedelta(minutes=15), "last_error": "No answer."},
            "The mail is late. No answer. Next try in",
        ),
        ({"tries": 1, "next_attempt_at": timedelta(minutes=5)}, "On its way to member@example.org"),
        ({"tries": 9, "given_up_at": timedelta(), "last_error": "No."}, "could not be sent; we gave up"),
        ({"tries": 1, "sent_at": timedelta()}, "Sent to member@example.org"),
    ],
)
def test_the_mails_state_is_told(
    signed_in: FlaskClient, job: Any, file: Any, mail: Any, values: dict[str, Any], words: str
) -> None:
    made = job("succeeded")
    file(made)
    at = now()
    mail(
        made,
        **{name: at + value if isinstance(value, timedelta) else value for name, value in values.items()},
    )
    page = signed_in.get(f"/jobs/{made}")
    assert words in shown(page.text)
    asks_soon = 'data-refresh="2"' in page.text or 'data-refresh="30"' in page.text
    assert asks_soon is not ("sent_at" in values or "given_up_at" in values)


def test_a_failed_job_says_what_happened_and_what_to_do(signed_in: FlaskClient, job: Any) -> None:
    made = job("failed", error_code="query_failed", error_message="Line 3 <divides> by zero.")
    page = signed_in.get(f"/jobs/{made}").text
    assert "Line 3 &lt;divides&gt; by zero." in page
    assert "query_failed" in page
    assert "Nothing was published" in page
    assert f'action="/jobs/{made}/retry"' in page
    assert f'href="/reports/all_tasks?job={made}"' in page


def test_a_cancelled_job_can_be_started_again(signed_in: FlaskClient, job: Any) -> None:
    page = signed_in.get(f"/jobs/{job('cancelled')}").text
    assert "Nothing was published." in page
    assert "Start it again" in page


def test_a_job_whose_report_is_gone_offers_nothing_that_would_fail(
    signed_in: FlaskClient, job: Any, file: Any
) -> None:
    made = job("succeeded", definition="was_here_once", title="Old one", params={"x": 1})
    file(made)
    page = signed_in.get(f"/jobs/{made}").text
    assert "Run again" not in page
    assert "Change parameters" not in page
    assert 'id="download"' in page
    assert "x 1" in shown(page)


# --- the log ----------------------------------------------------------------------------------------------


def test_the_log_has_an_anchor_for_each_line(signed_in: FlaskClient, job: Any, app: APIFlask) -> None:
    made = job("running", lines=2)
    with app.app_context():
        line = Event(job_id=made, number=3, level="error", text="<b>It</b> broke\n  here", at=now())
        db.session.add(line)
        db.session.execute(sa.update(Job).where(Job.id == made).values(last_event=3))
        db.session.commit()
    page = signed_in.get(f"/jobs/{made}").text
    assert '<li id="L3" class="line line-error" data-number="3">' in page
    assert 'href="#L3" aria-label="Line 3">3</a>' in page
    assert "&lt;b&gt;It&lt;/b&gt; broke\n  here" in page
    assert f'data-stream-url="/jobs/{made}/events?after=3"' in page


def test_a_long_log_shows_its_end_and_leads_to_the_rest(signed_in: FlaskClient, job: Any) -> None:
    made = job("succeeded", lines=LINES + 1500)
    page = signed_in.get(f"/jobs/{made}").text
    assert page.count('class="line"') == LINES
    assert 'id="L1501"' in page
    assert 'id="L1500"' not in page
    assert f'href="/jobs/{made}?before=1501"' in page
    assert "1,500</span> earlier lines" in page
    page = signed_in.get(f"/jobs/{made}?before=1501").text
    assert 'id="L501"' in page
    assert 'id="L1500"' in page
    assert 'id="L1501"' not in page
    page = signed_in.get(f"/jobs/{made}?before=501").text
    assert 'id="L1"' in page
    assert "Latest lines" in page


@pytest.mark.parametrize("before", ["0", "-5", "1", "x", "99999999999999999999999"])
def test_a_senseless_place_in_the_log_breaks_nothing(signed_in: FlaskClient, job: Any, before: str) -> None:
    assert signed_in.get(f"/jobs/{job('running', lines=3)}?before={before}").status_code == 200


# --- what may be done -------------------------------------------------------------------------------------


def test_cancelling_a_queued_job_ends_it(signed_in: FlaskClient, job: Any, post: Any, load: Any) -> None:
    made = job()
    answer = post(signed_in, f"/jobs/{made}/cancellation")
    assert (answer.status_code, answer.location) == (303, f"/jobs/{made}")
    assert load(made).status == "cancelled"


def test_cancelling_what_has_ended_changes_nothing_and_says_so(
    signed_in: FlaskClient, job: Any, post: Any, load: Any
) -> None:
    made = job("failed", error_message="x", error_code="y")
    assert post(signed_in, f"/jobs/{made}/cancellation").status_code == 303
    assert "nothing to cancel" in signed_in.get(f"/jobs/{made}").text
    assert load(made).status == "failed"


def test_retry_puts_a_failed_job_back(signed_in: FlaskClient, job: Any, post: Any, load: Any) -> None:
    made = job("failed", error_message="x", error_code="y")
    assert post(signed_in, f"/jobs/{made}/retry").location == f"/jobs/{made}"
    again = load(made)
    assert (again.status, again.started_at, again.error_code) == ("queued", None, None)
    post(signed_in, f"/jobs/{made}/retry")
    assert "can be tried again" in signed_in.get(f"/jobs/{made}").text


def test_again_makes_a_new_job_with_the_same_params(
    signed_in: FlaskClient, job: Any, post: Any, load: Any
) -> None:
    made = job("succeeded", params={"since": "2026-01-01"})
    where = post(signed_in, f"/jobs/{made}/again").location
    new = load(UUID(where.removeprefix("/jobs/")))
    assert new.id != made
    assert new.params == {"since": "2026-01-01"}
    assert new.parent_id == made
    assert f'href="/jobs/{made}"' in signed_in.get(where).text


@pytest.mark.parametrize("verb", ["cancellation", "retry", "again"])
def test_verbs_are_for_owners_with_a_token_of_their_session(
    signed_in: FlaskClient, auth: Any, other: Any, job: Any, post: Any, load: Any, verb: str
) -> None:
    made = job()
    assert post(auth.client_of(other), f"/jobs/{made}/{verb}").status_code == 404
    assert signed_in.post(f"/jobs/{made}/{verb}").status_code == 400
    assert signed_in.get(f"/jobs/{made}/{verb}").status_code == 405
    assert load(made).status == "queued"
