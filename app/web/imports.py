"""Imports on pages: the catalogue of importers, sending a file in, checking it, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from uuid import UUID

from apiflask import APIBlueprint
from flask import flash, redirect, render_template, request, url_for
from flask_security import auth_required
from werkzeug.datastructures import MultiDict
from werkzeug.wrappers import Response

from app import importers, jobs, settings, uploads
from app.errors import Conflict, InvalidParams, InvalidRequest, NotFound, WaybillError
from app.importers import Importer
from app.imports import mapping, requests
from app.imports.rows import Counts
from app.models.imports import APPLY, DRY_RUN, STEPS, Import
from app.models.job import Job
from app.models.upload import Upload
from app.web import import_page
from app.web.people import me
from app.web.uploads import receive_form, takes_file, unlimited

# Named apart from app.imports, whose verbs these views call.
pages = APIBlueprint("imports", __name__, enable_openapi=False)
# Apart, as it takes files.
sending = APIBlueprint("sending", __name__, enable_openapi=False)
sending.url_value_preprocessor(unlimited)


@pages.app_template_filter("reason")
def reason(code: str) -> str:
    return import_page.REASONS.get(code) or code.replace("_", " ").capitalize()


@pages.get("/imports")
@auth_required("session")
def index() -> str:
    """The importers this person may use, and their imports, newest first; `?everyone=1`, `?before=`."""
    everyone = me().is_admin and request.args.get("everyone") == "1"
    before = request.args.get("before") or None
    found, older = requests.listing(me(), everyone=everyone, before=before)
    mine = importers.registry().for_user(me().role_names)
    return render_template(
        "imports/index.html",
        groups=[(name, list(group)) for name, group in groupby(mine, key=lambda importer: importer.group)],
        imports=found,
        jobs=requests.jobs_of(found),
        counts_of=lambda import_: Counts.of(import_.result) if import_.result else None,
        older=older,
        before=before,
        everyone=everyone,
        problems=importers.registry().problems if me().is_admin and settings.current().development else (),
    )


@pages.get("/imports/new")
@auth_required("session")
def new() -> Response | str:
    """Where a file is sent in: `?importer=`; `?parent=` the import whose refused rows come back."""
    if not request.args.get("importer") and not request.args.get("parent"):
        return redirect(url_for("imports.index"))
    return _upload_page(*_meant())


@sending.post("/imports")
@auth_required("session")
@takes_file
def create() -> Response | tuple[str, int]:
    """A file in the form, or the id of an upload that static/upload.js has made already."""
    importer, parent = _meant()
    try:
        form = receive_form()
        upload = form.upload or _named(form.fields)
        if parent:
            import_ = requests.correct(me(), parent, upload)
        else:
            import_ = requests.create(me(), importer.key, upload)
    except WaybillError as error:
        if error.status >= 500:
            raise
        return _upload_page(importer, parent, error.message), error.status
    return redirect(url_for("imports.show", import_id=import_.id), 303)


@pages.get("/imports/<uuid:import_id>")
@auth_required("session")
def show(import_id: UUID) -> str:
    return _page(import_page.View(requests.find(me(), import_id)))


@pages.post("/imports/<uuid:import_id>")
@auth_required("session")
def revise(import_id: UUID) -> Response | tuple[str, int]:
    """Save the form; the button that was pressed says whether to look again or to ask for a step."""
    import_ = requests.find(me(), import_id)
    view = import_page.View(import_, request.form)
    step = request.form.get("step", "")
    if (key := _key(step)) and (job := requests.asked_before(me(), import_, step, key)):
        return _to(job)
    try:
        _save(view)
        if step in (DRY_RUN, APPLY):
            return _to(_ask(import_, step))
    except InvalidParams as error:
        view.errors = error.errors
        return _page(view), error.status
    except Conflict as error:
        flash(error.message, "warning")
    return redirect(url_for("imports.show", import_id=import_id, _anchor="rows" if not step else None), 303)


@pages.post("/imports/<uuid:import_id>/jobs")
@auth_required("session")
def ask(import_id: UUID) -> Response:
    """A step of an import as it is saved: "apply" once more, perhaps with other limits, or "undo"."""
    import_ = requests.find(me(), import_id)
    try:
        if "reject_limit" in request.form:
            requests.revise(me(), import_, limits=import_page.limits(request.form))
        return _to(_ask(import_, request.form.get("step", "")))
    except (Conflict, InvalidParams) as error:
        flash(error.message, "warning")
        return redirect(url_for("imports.show", import_id=import_id), 303)


@pages.post("/jobs/<uuid:job_id>/pause")
@auth_required("session")
def pause(job_id: UUID) -> Response:
    return _tried(requests.pause, job_id)


@pages.post("/jobs/<uuid:job_id>/resumption")
@auth_required("session")
def resume(job_id: UUID) -> Response:
    return _tried(requests.resume, job_id)


def _tried(verb: Callable[[Job], Job], job_id: UUID) -> Response:
    job = jobs.find(me(), job_id)
    try:
        verb(job)
    except Conflict as error:
        flash(error.message, "warning")
    return _to(job)


def _to(job: Job) -> Response:
    return redirect(url_for("jobs.show", job_id=job.id), 303)


def _ask(import_: Import, step: str) -> Job:
    return requests.request(me(), import_, step, idempotency_key=_key(step))


def _key(step: str) -> str | None:
    """The same form sent twice is one job."""
    nonce = request.form.get("nonce", "")[:100]
    return f"form-{nonce}-{step}" if nonce.isprintable() and nonce and step in STEPS else None


def _parent(raw: str) -> Import | None:
    if not raw:
        return None
    try:
        return requests.find(me(), UUID(raw))
    except ValueError:
        raise NotFound("There is no such import, or it is not yours.") from None


def _meant() -> tuple[Importer, Import | None]:
    """The importer and the import whose refused rows come back, as the address has them."""
    parent = _parent(request.args.get("parent", ""))
    key = parent.importer if parent else request.args.get("importer", "")
    if not key:
        raise InvalidRequest("Choose what to import first.")
    return requests.importer_for(me(), key), parent


def _named(fields: MultiDict[str, str]) -> Upload:
    """The upload that the form names."""
    if not fields.get("upload"):
        raise InvalidRequest("Choose a file first.")
    try:
        return uploads.find(me(), UUID(fields["upload"]))
    except ValueError:
        raise NotFound("There is no such upload, or it is not yours.") from None


def _upload_page(importer: Importer, parent: Import | None, trouble: str | None = None) -> str:
    return render_template(
        "imports/new.html",
        importer=importer,
        parent=parent,
        trouble=trouble,
        limit=uploads.in_units(settings.current().upload_limit_bytes),
        limit_bytes=settings.current().upload_limit_bytes,
    )


def _page(view: import_page.View) -> str:
    return render_template("imports/show.html", view=view, modes=import_page.MODES, labels=import_page.LABELS)


def _save(view: import_page.View) -> None:
    """Keep what was posted: how the file is read, its columns, the mode and the limits."""
    form, import_ = request.form, view.import_
    read = {
        name: value
        for name, value in import_page.read(form).items()
        if getattr(view.dialect, name, None) != value
    }
    places = {
        name.removeprefix(import_page.MAP): import_page.place(form[name])
        for name in form
        if name.startswith(import_page.MAP)
    }
    # Read in another way it may have other columns: where they go is found anew.
    same = form.get("header-sha256") == mapping.fingerprint(import_.header)
    before = list(import_.header)
    requests.revise(me(), import_, dialect=read or None)
    if places and same and import_.header == before:
        requests.revise(me(), import_, mapping=places)
    requests.revise(me(), import_, mode=form.get("mode") or None, limits=import_page.limits(form))
