"""Imports on pages: from the file to what came of it."""

from __future__ import annotations

import re
from io import BytesIO
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, update

from app.extensions import db
from app.models.imports import Import
from app.models.job import Job

HEADER = b"E-Mail;Full Name;Company;Joined\n"
FILE = HEADER + b"ann@example.org;Ann;Acme;31.01.2026\n;Bob;Acme;28.02.2026\n"


class Pages:
    """What a person does with imports, through the real forms."""

    def __init__(self, app: Any, client: Any, auth: Any) -> None:
        self.app, self.client, self.auth = app, client, auth

    def send(self, content: bytes = FILE, name: str = "members.csv", parent: str = "") -> Any:
        """Post the form of the upload page; the CSRF token comes before the file."""
        form = {"csrf_token": self.auth.csrf(), "upload": "", "file": (BytesIO(content), name)}
        meant = f"parent={parent}" if parent else "importer=members"
        return self.client.post(f"/imports?{meant}", data=form)

    def sent(self, content: bytes = FILE, **fields: str) -> str:
        """The address of a new import's page."""
        answer = self.send(content, **fields)
        assert answer.status_code == 303, answer.text
        return str(answer.location)

    def post(self, url: str, **fields: str) -> Any:
        return self.client.post(url, data={"csrf_token": self.auth.csrf()} | fields)

    def form(self, url: str) -> dict[str, str]:
        """All fields of the page's form, as a browser would send them."""
        text = self.client.get(url).text
        form = text[text.index('id="check"') :]
        form = form[: form.index("</form>")]
        fields = {
            name: value
            for tag in re.findall(r"<input [^>]*>", form)
            if (name := _attribute(tag, "name")) and ('type="radio"' not in tag or "checked" in tag)
            for value in [_attribute(tag, "value")]
        }
        for name, body in re.findall(r'<select [^>]*name="([^"]+)"[^>]*>(.*?)</select>', form, re.S):
            chosen = [
                _attribute(tag, "value") for tag in re.findall(r"<option [^>]*>", body) if "selected" in tag
            ]
            fields[name] = (
                chosen[0] if chosen else _attribute(re.findall(r"<option [^>]*>", body)[0], "value")
            )
        return fields

    def end(self, url: str, status: str, step: str = "apply", **found: Any) -> UUID:
        """What a worker does at the end of the latest job; `found` are fields of the import."""
        import_id = UUID(url.rpartition("/")[2])
        with self.app.app_context():
            job = db.session.scalars(
                db.select(Job).where(Job.import_id == import_id, Job.step == step)
            ).all()[-1]
            at = func.clock_timestamp()
            ended = {"status": status, "started_at": at, "finished_at": at}
            db.session.execute(update(Job).where(Job.id == job.id).values(**ended))
            if found:
                db.session.execute(update(Import).where(Import.id == import_id).values(**found))
            db.session.commit()
            return UUID(str(job.id))


def _attribute(tag: str, name: str) -> str:
    found = re.search(rf' {name}="([^"]*)"', tag)
    return found[1].replace("&#34;", '"').replace("&quot;", '"') if found else ""


@pytest.fixture
def pages(app, client, auth, member) -> Pages:
    auth.sign_in(member)
    return Pages(app, client, auth)


COUNTS = {"read": 2, "inserted": 1, "updated": 0, "unchanged": 0, "refused": 1, "refused_by": {"required": 1}}


def test_an_empty_page_teaches_the_first_step(pages):
    text = pages.client.get("/imports").text
    assert "Your first import starts above" in text
    assert "/imports/new?importer=members" in text
    assert 'href="/imports" aria-current="page"' in text


def test_importers_are_those_of_one_s_roles(app, client, auth, person):
    auth.sign_in(person("guest@example.org", "guest"))
    assert "Nothing can be imported by you yet" in client.get("/imports").text
    assert client.get("/imports/new?importer=members").status_code == 404


def test_the_upload_page_tells_what_is_wanted(pages):
    text = pages.client.get("/imports/new?importer=members").text
    assert 'enctype="multipart/form-data"' in text
    assert "<code>joined_on</code>" in text
    assert "5 GiB" in text
    assert pages.client.get("/imports/new").location == "/imports"
    assert pages.client.get("/imports/new?importer=nope").status_code == 404


def test_a_file_is_shown_as_it_was_understood(pages):
    text = pages.client.get(pages.sent()).text
    assert "members.csv" in text
    assert '<option value="semicolon" selected>' in text
    assert '<option value="dmy" selected>' in text
    assert "First rows, as they would be stored" in text
    assert "2026-01-31" in text
    assert re.search(r"[12] refused", text)  # two, if the demo's tables are there and know no such company
    assert "cell-error" in text
    assert "Import now" in text
    assert "Dry run" in text


def test_what_the_file_does_not_make_certain_is_said(pages):
    text = pages.client.get(pages.sent(b"email,name,company,joined\na@b.co,Ann,Acme,01/02/2026\n")).text
    assert "may be either" in text


def test_no_file_and_files_that_are_none_are_refused_on_the_page(pages):
    answer = pages.post("/imports?importer=members")
    assert answer.status_code == 400
    assert "Choose a file first" in answer.text
    answer = pages.send(b"%PDF-1.7 nothing", "a.pdf")
    assert answer.status_code == 422
    assert "PDF" in answer.text
    assert 'type="file"' in answer.text


def test_a_file_needs_the_session_s_token(pages):
    answer = pages.client.post("/imports?importer=members", data={"file": (BytesIO(FILE), "m.csv")})
    assert answer.status_code == 400


def test_how_it_is_read_can_be_corrected(pages):
    url = pages.sent()
    form = pages.form(url)
    answer = pages.post(
        url, **form | {"dialect.dates": "mdy", "mode": "insert", "rate": "500", "reject_limit": ""}
    )
    assert answer.status_code == 303
    assert answer.location.startswith(url)
    form = pages.form(url)
    assert form["dialect.dates"] == "mdy"
    assert form["mode"] == "insert"
    assert (form["rate"], form["reject_limit"], form["reject_percent"]) == ("500", "", "5")


def test_columns_can_go_elsewhere(pages):
    url = pages.sent()
    form = pages.form(url)
    assert form["map.name"] == "1"
    pages.post(url, **form | {"map.name": "2", "map.company_id": "1"})
    assert pages.form(url)["map.name"] == "2"
    # Twice the same is an error beside the column.
    answer = pages.post(url, **pages.form(url) | {"map.email": "2"})
    assert answer.status_code == 422
    assert "goes to" in answer.text


def test_another_delimiter_gives_other_columns(pages):
    url = pages.sent()
    pages.post(url, **pages.form(url) | {"dialect.delimiter": "comma"})
    text = pages.client.get(url).text
    assert "1 column" in text
    assert "is required, and no column of the file goes there" in text
    # And back again they go where they went.
    pages.post(url, **pages.form(url) | {"dialect.delimiter": "semicolon"})
    assert pages.form(url)["map.email"] == "0"


def test_wrong_values_are_told_and_nothing_is_started(pages):
    url = pages.sent()
    answer = pages.post(url, **pages.form(url) | {"rate": "many", "step": "apply"})
    assert answer.status_code == 422
    assert "Nothing was started" in answer.text
    with pages.app.app_context():
        assert db.session.scalar(db.select(func.count()).select_from(Job)) == 0


@pytest.mark.parametrize(
    ("field", "typed", "said"),
    [
        ("skip", "9" * 5000, "number of lines"),
        ("nulls", "\0", "20 texts"),
        ("member", "\0", "Give a name"),
    ],
)
def test_what_no_database_takes_is_told(pages, field, typed, said):
    url = pages.sent()
    answer = pages.post(url, **pages.form(url) | {f"dialect.{field}": typed, "step": ""})
    assert answer.status_code == 422
    assert said in answer.text or field == "member"


@pytest.mark.parametrize(("nonce", "step"), [("\0", "dry-run"), ("x", "\0")])
def test_a_strange_nonce_or_step_is_none(pages, nonce, step):
    url = pages.sent()
    assert pages.post(url, **pages.form(url) | {"nonce": nonce, "step": step}).status_code == 303


def test_a_missing_column_keeps_it_from_being_started(pages):
    url = pages.sent(b"a,b\n1,2\n")
    answer = pages.post(url, **pages.form(url) | {"step": "apply"})
    assert answer.status_code == 422


@pytest.mark.parametrize("step", ["dry-run", "apply"])
def test_a_step_leads_to_its_job(pages, step):
    url = pages.sent()
    form = pages.form(url) | {"step": step}
    answer = pages.post(url, **form)
    assert answer.status_code == 303
    assert "/jobs/" in answer.location
    # The same form sent twice is one job.
    assert pages.post(url, **form).location == answer.location
    text = pages.client.get(answer.location).text
    assert "members.csv" in text
    assert ("Pause" in text) == (step == "apply")
    # Meanwhile the import's page leads there, too.
    assert answer.location in pages.client.get(url).text


def test_what_a_dry_run_found(pages):
    url = pages.sent()
    job = pages.post(url, **pages.form(url) | {"step": "dry-run"}).location
    example = {"line": 2, "key": {"email": "ann@example.org"}, "changes": {"name": ["Anna", "Ann"]}}
    pages.end(url, "succeeded", "dry-run", forecast=COUNTS | {"examples": [example]})
    text = pages.client.get(url).text
    assert "would be inserted" in text
    assert "<del>Anna</del>" in text
    assert "<ins>Ann</ins>" in text
    assert "required" in text
    assert "Import now" in text
    text = pages.client.get(job).text
    assert "nothing was written" in text
    assert "Go on to import" in text


def test_what_came_of_it(pages):
    url = pages.sent()
    job = pages.post(url, **pages.form(url) | {"step": "apply"}).location
    pages.end(url, "succeeded", result=COUNTS)
    for page in (url, job):
        text = pages.client.get(page).text
        assert "inserted" in text
        assert "Upload corrected rows" in text
        assert 'value="undo"' in text
    assert "Import now" not in pages.client.get(url).text
    assert "1 inserted, 0 updated, 1 refused" in pages.client.get("/imports").text


def test_corrected_rows_come_back_under_their_import(pages):
    url = pages.sent()
    pages.post(url, **pages.form(url) | {"step": "apply"})
    pages.end(url, "succeeded", result=COUNTS)
    parent = url.rpartition("/")[2]
    assert "corrected" in pages.client.get(f"/imports/new?parent={parent}").text
    child = pages.sent(
        HEADER.strip() + b";line;column;code;message\nb@b.co;Bob;Acme;28.02.2026;3;;;\n", parent=parent
    )
    assert "corrected rows of" in pages.client.get(child).text
    assert child in pages.client.get(url).text


def test_undo_and_what_it_left(pages):
    url = pages.sent()
    pages.post(url, **pages.form(url) | {"step": "apply"})
    pages.end(url, "succeeded", result=COUNTS)
    answer = pages.post(f"{url}/jobs", step="undo")
    assert "/jobs/" in answer.location
    pages.end(url, "succeeded", "undo", undone={"updated": 3, "inserted": 1, "skipped": 2})
    text = pages.client.get(answer.location).text
    assert "put back" in text
    assert "left alone" in text
    assert 'value="undo"' not in pages.client.get(url).text
    assert pages.post(f"{url}/jobs", step="undo").location == url
    assert "undone already" in pages.client.get(url).text


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_one_that_stopped_can_be_gone_on_with(pages, status):
    url = pages.sent()
    job = pages.post(url, **pages.form(url) | {"step": "apply"}).location
    pages.end(url, status, result=COUNTS)
    text = pages.client.get(job).text
    assert "Go on with it" in text
    assert "1 inserted" in text
    assert "Go on with it" in pages.client.get(url).text
    pages.post(f"{job}/retry")
    assert "queue" in pages.client.get(job).text


def test_pausing_and_going_on(pages):
    url = pages.sent()
    job = pages.post(url, **pages.form(url) | {"step": "apply"}).location
    assert pages.post(f"{job}/pause").location == job
    text = pages.client.get(job).text
    assert "Paused" in text
    assert "Resume" in text
    pages.post(f"{job}/resumption")
    assert "/resumption" not in pages.client.get(job).text


def test_others_imports_are_not_there(pages, auth, other):
    url = pages.sent()
    job = pages.post(url, **pages.form(url) | {"step": "apply"}).location
    stranger = Pages(pages.app, auth.client_of(other), auth)
    assert stranger.client.get(url).status_code == 404
    assert stranger.client.get("/imports/new?parent=" + url.rpartition("/")[2]).status_code == 404
    for verb in (url, f"{url}/jobs", f"{job}/pause", f"{job}/resumption"):
        token = {"csrf_token": auth.csrf(stranger.client)}
        assert stranger.client.post(verb, data=token).status_code == 404


def test_an_administrator_sees_everybody_s(pages, auth, admin):
    url = pages.sent()
    client = auth.client_of(admin)
    assert url not in client.get("/imports").text
    assert url in client.get("/imports?everyone=1").text
    assert "member@example.org" in client.get(url).text


def test_names_and_cells_are_no_markup(pages):
    evil = b"<script>alert(1)</script>;name;company;joined\n<b>x</b>;<i>y</i>;Acme;01.01.2026\n"
    text = pages.client.get(pages.sent(evil, name="<img src=x>.csv")).text
    assert "<script>alert" not in text
    assert "<i>y" not in text
    assert "<img src=x" not in text


def test_ten_thousand_columns(pages):
    names = ["email", "name", "company", "joined", *(f"c{n}" for n in range(10_000))]
    row = ["a@b.co", "Ann", "Acme", "2026-01-01", *("7" for _ in range(10_000))]
    url = pages.sent((",".join(names) + "\n" + ",".join(row) + "\n").encode())
    text = pages.client.get(url).text
    assert len(text) < 200_000
    form = pages.form(url)
    assert form["map.email"] == "0"
    pages.post(url, **form | {"map.role": "c9"})
    assert pages.form(url)["map.role"] == "13"


def test_the_file_s_end_is_told(pages):
    url = pages.sent()
    with pages.app.app_context():
        from app.models.upload import Upload

        db.session.execute(update(Upload).values(removed_at=func.clock_timestamp()))
        db.session.commit()
    text = pages.client.get(url).text
    assert "taken away" in text
    assert "Import now" not in text


def test_what_was_typed_stands_beside_its_error(pages):
    url = pages.sent()
    form = pages.form(url) | {"rate": "many", "mode": "skip", "map.role": "2", "map.company_id": "2"}
    text = pages.post(url, **form).text
    assert 'name="rate" value="many"' in text
    assert 'value="skip" checked' in text


def test_one_that_refused_too_much_goes_on_with_other_limits(pages):
    url = pages.sent()
    job = pages.post(url, **pages.form(url) | {"step": "apply"}).location
    id = pages.end(url, "failed", result=COUNTS)
    with pages.app.app_context():
        db.session.execute(update(Job).where(Job.id == id).values(error_code="too_many_refused"))
        db.session.commit()
    assert "Change the limits" in pages.client.get(job).text
    assert 'name="reject_limit"' in pages.client.get(url).text
    limits = {"reject_limit": "", "reject_percent": "", "rate": "9"}
    assert "/jobs/" in pages.post(f"{url}/jobs", step="apply", **limits).location
    with pages.app.app_context():
        import_ = db.session.scalars(db.select(Import)).one()
        assert (import_.reject_limit, import_.reject_percent, import_.rate) == (None, None, 9)


def test_what_a_dry_run_found_stays_until_something_changes(pages):
    url = pages.sent()
    job = pages.post(url, **pages.form(url) | {"step": "dry-run"}).location
    pages.end(url, "succeeded", "dry-run", forecast=COUNTS)
    pages.post(url, **pages.form(url))
    assert 'id="forecast"' in pages.client.get(url).text
    pages.post(url, **pages.form(url) | {"mode": "insert"})
    assert 'id="forecast"' not in pages.client.get(url).text
    assert "changed since" in pages.client.get(job).text
