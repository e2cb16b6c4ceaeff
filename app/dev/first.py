"""The main job, done once for the newcomer: through the same API, actors, storage and mail as any other."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app.dev.child import ChildFailed
from app.dev.mailbox import Mailbox

REPORT = "all_tasks"
LIMIT_SECONDS = 300.0
MAIL_SECONDS = 30.0
POLL_SECONDS = 0.2
FINAL = ("succeeded", "failed", "cancelled")


@dataclass(frozen=True)
class Result:
    """What the first export came to; `subject` is None where mails go to a server of your own."""

    rows: int
    bytes: int
    seconds: float
    link: str
    subject: str | None


def export(
    base_url: str,
    token: str,
    *,
    mailbox: Mailbox | None,
    to: str,
    note: Callable[[str], None],
    meanwhile: Callable[[], None],
) -> Result:
    """Ask for the report as `to`, wait for the file and for the mail.

    `note` hears of the progress; `meanwhile` is called again and again, and may see to the processes.
    Raises ChildFailed when the job does not succeed, and NoSuchMail when its mail does not come.
    """
    began = time.monotonic()
    job = _call(f"{base_url}/api/v1/exports", token, {"report": REPORT, "params": {}, "format": "csv"})
    job = _finished(f"{base_url}/api/v1/jobs/{job['id']}", token, began, note, meanwhile)
    seconds = time.monotonic() - began
    artifact = job["artifact"]
    subject = None
    if mailbox is not None:
        note("waiting for the mail")
        subject = mailbox.wait(to=to, seconds=MAIL_SECONDS).subject
    return Result(artifact["rows"], artifact["bytes"], seconds, artifact["url"], subject)


def _finished(
    url: str, token: str, began: float, note: Callable[[str], None], meanwhile: Callable[[], None]
) -> dict[str, Any]:
    said = ""
    while time.monotonic() - began < LIMIT_SECONDS:
        meanwhile()
        job = _call(url, token)
        if job["status"] == "succeeded":
            return job
        if job["status"] in FINAL:
            why = (job["error"] or {}).get("message", "no reason was given")
            raise ChildFailed(f"The first export is {job['status']}: {why}")
        text = _progress(job)
        if text != said:
            note(text)
            said = text
        time.sleep(POLL_SECONDS)
    raise ChildFailed(f"The first export was not done within {LIMIT_SECONDS:.0f} s; see var/log/worker.log.")


def _progress(job: dict[str, Any]) -> str:
    done, total = job["progress"]["done"], job["progress"]["total"]
    if not done:
        return str(job["status"])
    return f"{done:,} of {total:,} rows" if total else f"{done:,} rows"


def _call(url: str, token: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    request = urllib.request.Request(
        url,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            found: dict[str, Any] = json.load(answer)
            return found
    except urllib.error.HTTPError as error:
        said = error.read().decode(errors="replace")[:500]
        raise ChildFailed(f"{url} answered {error.code}: {said}") from None
