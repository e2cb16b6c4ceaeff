"""What an export would be, told on the report's form before it is asked for."""

from __future__ import annotations

from collections.abc import Mapping

from apiflask import APIBlueprint
from flask import render_template, request
from flask_security import auth_required

from app import jobs, preflight, sampling
from app.errors import InvalidParams, InvalidRequest
from app.reports import Report
from app.web import lists
from app.web.people import me
from app.web.reports import Form, page

pages = APIBlueprint("preflight", __name__, enable_openapi=False)
pages.url_value_preprocessor(lists.make_room)


@pages.post("/reports/<key>/preflight")
@auth_required("session")
def ask(key: str) -> tuple[str, int]:
    """The form as it was filled in, with the forecast; for preflight.js the forecast alone."""
    report = jobs.report_for(me(), key)
    form = Form(report, request.form, request.files)
    fragment = request.headers.get("X-Fragment") == "preflight"
    try:
        form.read_lists()
        asked = jobs.think_of(
            me(), key, form.raw, format=form.format, compression=form.compression, columns=form.columns
        )
    except (InvalidParams, InvalidRequest) as error:
        said = error.message
        if isinstance(error, InvalidParams):
            form.errors = error.errors
            said = _labelled(report, error.errors)
        else:
            form.trouble = error.message
        if fragment:
            return render_template("reports/_preflight.html", refused=said), error.status
        return page(form), error.status
    sample = sampling.sample(asked) if "sample" in request.form else None
    forecast = preflight.forecast(asked)
    if fragment:
        return render_template("reports/_preflight.html", forecast=forecast, sample=sample), 200
    return page(form, forecast, sample), 200


def _labelled(report: Report, errors: Mapping[str, str]) -> str:
    """The errors in a line, each with what its param is called on the form."""
    labels = {param.name: param.label for param in report.params} | {"columns": "Columns"}
    return "; ".join(f"{labels.get(name, name)}: {text}" for name, text in errors.items())
