"""The page of those who keep Waybill running: what is wrong, what to do, and the figures behind it."""

from __future__ import annotations

import re
from collections import Counter

from apiflask import APIBlueprint
from flask import abort, render_template
from flask_security import auth_required
from markupsafe import Markup, escape

from app import monitoring
from app.models.job import STATUSES
from app.monitoring import State
from app.web.people import me

pages = APIBlueprint("operations", __name__, enable_openapi=False)


@pages.get("/operations")
@auth_required("session")
def show() -> str:
    """For administrators; for others there is no such page."""
    if not me().is_admin:
        abort(404)
    state = monitoring.look()
    found = monitoring.findings(state)
    return render_template(
        "operations/show.html",
        state=state,
        findings=found,
        level=monitoring.level(found),
        span=monitoring.span,
        ended=_ended(state),
    )


@pages.app_template_filter("with_code")
def with_code(text: str) -> Markup:
    """What stands between backticks as code: names of processes, commands."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _ended(state: State) -> dict[str, int]:
    """How many jobs ended each way within the last day."""
    counts = Counter[str]()
    for one in state.ended:
        counts[one.status] += one.jobs
    return {status: counts[status] for status in STATUSES if counts[status]}
