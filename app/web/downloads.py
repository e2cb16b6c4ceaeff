"""The emailed link: hands out an artifact's bytes, or says why it no longer does; revoking, renewing it.

A link is a key: whoever holds it gets the file. So its path is logged nowhere, sent as a referrer nowhere
and cached nowhere; and looking at it changes nothing, since mail scanners open every link.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Literal
from uuid import UUID

from apiflask import APIBlueprint
from flask import current_app, flash, redirect, render_template, request, url_for
from flask_security import auth_required, current_user
from sqlalchemy import func, update
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import Unauthorized
from werkzeug.wrappers import Response

from app import jobs, links, receipts
from app.errors import NotFound, ObjectMissing
from app.extensions import db
from app.models import Artifact, Download, Job
from app.storage import Blocks, Storage, disposition
from app.web.people import me

log = logging.getLogger(__name__)
pages = APIBlueprint("downloads", __name__, enable_openapi=False)

# How long the storage's own URL is good, in seconds: it is made at the click and followed at once.
PRESIGNED_SECONDS = 60

# Why a genuine link opens nothing.
Ending = Literal["expired", "revoked", "replaced", "gone"]


@pages.get("/d/<token>")
def fetch(token: str) -> Response:
    """The file, as a whole or a range; 404 for a link we never made, 410 for one that is over."""
    return _opened(token, _hand_out)


@pages.get("/d/<token>/receipt")
def fetch_receipt(token: str) -> Response:
    """The file's receipt, for whom the link gives the file."""
    return _opened(token, _receipt)


@pages.get("/jobs/<uuid:job_id>/receipt")
@auth_required("session")
def show_receipt(job_id: UUID) -> Response:
    """The receipt of a job's file, which outlives the file."""
    return _receipt(_artifact_of(job_id))


@pages.post("/jobs/<uuid:job_id>/link/revocation")
@auth_required("session")
def revoke(job_id: UUID) -> Response:
    """From now on no link to the job's file opens; the file stays."""
    artifact = _artifact_of(job_id)
    db.session.execute(
        update(Artifact)
        .where(Artifact.id == artifact.id, Artifact.link_revoked_at.is_(None))
        .values(link_revoked_at=func.clock_timestamp())
    )
    db.session.commit()
    flash("The download link is revoked: it opens for nobody any more.", "success")
    return redirect(url_for("jobs.show", job_id=job_id), 303)


@pages.post("/jobs/<uuid:job_id>/link")
@auth_required("session")
def renew(job_id: UUID) -> Response:
    """A new link; all earlier ones stay or become dead."""
    artifact = _artifact_of(job_id)
    renewed = db.session.execute(
        update(Artifact)
        .where(
            Artifact.id == artifact.id,
            Artifact.removed_at.is_(None),
            Artifact.expires_at > func.clock_timestamp(),
        )
        .values(link_generation=Artifact.link_generation + 1, link_revoked_at=None)
        .returning(Artifact.id)
    ).first()
    db.session.commit()
    if renewed:
        flash("There is a new download link. Earlier ones open no more.", "success")
    else:
        flash("The file has expired, so there can be no new link to it. Run the job again.", "warning")
    return redirect(url_for("jobs.show", job_id=job_id), 303)


@pages.after_request
def keep_secret(response: Response) -> Response:
    """On every answer under a link, errors included."""
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["X-Robots-Tag"] = "noindex, nofollow, noarchive"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers.setdefault("Cache-Control", "private, no-store")
    return response


def _opened(token: str, answer: Callable[[Artifact], Response]) -> Response:
    """The answer that a good link gives, or why this one gives it no longer."""
    now = jobs.database_now()
    claim = _claimed(token, now)
    artifact = db.session.get(Artifact, claim.artifact_id)
    if artifact is None:
        return _over("gone", None)
    _check_sign_in(artifact)
    ending = _ending(artifact, claim, now)
    return _over(ending, artifact) if ending else answer(artifact)


def _claimed(token: str, now: datetime) -> links.LinkClaim:
    """What a genuine token says, even after its time: the page then tells what it was good for."""
    try:
        return links.read(token, now)
    except links.LinkLapsed as error:
        return error.claim


def _check_sign_in(artifact: Artifact) -> None:
    """Raises Unauthorized or NotFound where the report's links ask who opens them."""
    if _asks_for_sign_in(artifact.job):
        if not current_user.is_authenticated:
            raise Unauthorized
        jobs.find(me(), artifact.job_id)


def _asks_for_sign_in(job: Job) -> bool:
    """As its report says today. Of a report that is gone we don't know, so we ask."""
    try:
        return jobs.registry().get(job.definition).link == "signed-in"
    except NotFound:
        return True


def _ending(artifact: Artifact, claim: links.LinkClaim, now: datetime) -> Ending | None:
    if artifact.removed_at or artifact.expires_at <= now or claim.expires_at <= now:
        return "expired"
    if artifact.link_revoked_at:
        return "revoked"
    return None if artifact.link_generation == claim.generation else "replaced"


def _over(ending: Ending, artifact: Artifact | None) -> Response:
    """410: what it was, and how to get it again."""
    signed_in = current_user.is_authenticated
    mine = bool(artifact and signed_in and (me().is_admin or artifact.job.owner_id == me().id))
    page = render_template(
        "downloads/over.html", ending=ending, artifact=artifact, signed_in=signed_in, mine=mine
    )
    return Response(page, 410, mimetype="text/html")


def _hand_out(artifact: Artifact) -> Response:
    storage: Storage = current_app.extensions["waybill.storage"]
    try:
        found = storage.stat(artifact.key)
    except ObjectMissing:
        log.exception("Artifact %s has lost its object.", artifact.id)
        return _over("gone", artifact)
    if found.bytes != artifact.bytes:
        log.error("Artifact %s has %d bytes, not %d.", artifact.id, found.bytes, artifact.bytes)
        return _over("gone", artifact)
    # A URL is presigned for one method; HEAD is answered from here.
    if request.method == "GET" and (url := _presigned(storage, artifact)):
        return _recorded(artifact, redirect(url), _first_byte(artifact))
    return _stream(storage, artifact)


def _receipt(artifact: Artifact) -> Response:
    name = artifact.filename + receipts.SUFFIX
    return Response(
        receipts.as_bytes(artifact.receipt),
        mimetype="application/json",
        headers={"Content-Disposition": disposition(name), "Cache-Control": "private, no-store"},
    )


def _presigned(storage: Storage, artifact: Artifact) -> str | None:
    return storage.presign(
        artifact.key,
        filename=artifact.filename,
        content_type=artifact.content_type,
        seconds=PRESIGNED_SECONDS,
    )


def _stream(storage: Storage, artifact: Artifact) -> Response:
    """200, 206, 304, 412 or 416, with a body only where one is wanted."""
    response = Response(status=200, headers=_headers(artifact))
    response.set_etag(artifact.sha256)
    response.last_modified = artifact.created_at
    response.make_conditional(request.environ)
    response.headers["Accept-Ranges"] = "bytes"
    if response.status_code != 200:
        return response
    response.content_length = artifact.bytes
    if request.method == "HEAD":
        return response
    return _send(storage, artifact, response)


def _send(storage: Storage, artifact: Artifact, response: Response) -> Response:
    start, end = 0, artifact.bytes
    if _wants_range(artifact, response):
        bounds = request.range and request.range.range_for_length(artifact.bytes)
        if not bounds:
            return _unsatisfiable(artifact, response)
        start, end = bounds
        response.status_code = 206
        response.headers["Content-Range"] = f"bytes {start}-{end - 1}/{artifact.bytes}"
        response.content_length = end - start
    response.response = Breathing(storage.open(artifact.key, start, end))
    response.direct_passthrough = True
    return _recorded(artifact, response, start)


def _headers(artifact: Artifact) -> dict[str, str]:
    return {
        "Content-Type": artifact.content_type,
        "Content-Disposition": disposition(artifact.filename),
        # Should a browser show it after all, then as a stranger without scripts.
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "Cache-Control": "private, no-transform, max-age=0, must-revalidate",
    }


def _wants_range(artifact: Artifact, response: Response) -> bool:
    """Whether one range is asked for, of the file as it is; anything else gets the whole."""
    if request.range is None or request.range.units != "bytes" or len(request.range.ranges) != 1:
        return False
    known = request.if_range
    if known.etag is not None:
        return known.etag == artifact.sha256
    return known.date is None or known.date == response.last_modified


def _unsatisfiable(artifact: Artifact, response: Response) -> Response:
    response.status_code = 416
    response.content_length = 0
    response.headers["Content-Range"] = f"bytes */{artifact.bytes}"
    return response


def _first_byte(artifact: Artifact) -> int:
    """Where the bytes begin that the storage will be asked for with the same Range."""
    bounds = request.range and request.range.range_for_length(artifact.bytes)
    return bounds[0] if bounds else 0


def _recorded(artifact: Artifact, response: Response, start: int) -> Response:
    """Note the download, unless it goes on with an earlier one. Not worth failing it for."""
    if start:
        return response
    artifact_id = artifact.id
    try:
        db.session.add(
            Download(
                artifact_id=artifact_id,
                user_id=current_user.id if current_user.is_authenticated else None,
                address=request.remote_addr or "unknown",
                user_agent=request.user_agent.string[:500],
            )
        )
        db.session.commit()
    except SQLAlchemyError:
        db.session.rollback()
        log.exception("A download of artifact %s could not be recorded.", artifact_id)
    return response


def _artifact_of(job_id: UUID) -> Artifact:
    artifact = jobs.artifact_of(jobs.find(me(), job_id))
    if artifact is None:
        raise NotFound("This job has no file, so there is no link to it.")
    return artifact


class Breathing:
    """A body that lets other requests have their turn between its blocks.

    Reading a file and sending to a fast client never wait, so gevent would not switch by itself.
    """

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        time.sleep(0)
        return next(self._blocks)

    def close(self) -> None:
        self._blocks.close()
