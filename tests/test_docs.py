"""The docs tell all there is, and nothing that is not.

`python -m tests.test_docs` writes the tables of settings anew.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import MISSING, fields
from typing import Any

import click
import pytest

from app import errors
from app.dev.stack import read_procfile
from app.models.token import ApiToken
from app.reports import Registry
from app.settings import ROOT, Settings

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
WITH_SETTINGS = ("README.md", "docs/operator.md")
REQUIRED = {"DATABASE_URL": "required", "REDIS_URL": "required", "STORAGE_URL": "required"}
DEFAULTS = REQUIRED | {
    "SECRET_KEY": "required in production",
    "DEMO": "`false`; `true` in development",
    "SOURCES": "none",
    "TARGETS": "none",
}
METRIC = re.compile(r"\bwaybill_[a-z_]+")
# Commands that Flask and its extensions bring along.
FOREIGN = {"run", "shell", "routes", "db"}


def page(name: str) -> str:
    return (ROOT / name).read_text()


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page(name), re.DOTALL)


# Settings.


def settings_table() -> str:
    lines = ["| name | default | |", "|---|---|---|"]
    for item in fields(Settings):
        name = item.name.upper()
        shown = {"SOURCES": "SOURCE_<NAME>_URL", "TARGETS": "SOURCE_<NAME>_WRITE_URL"}.get(name, name)
        help = item.metadata["help"].removeprefix("`SOURCE_<NAME>_URL`, o")
        help = f"O{help}" if name == "SOURCES" else help
        lines.append(f"| `{shown}` | {DEFAULTS.get(name) or default(item)} | {help} |")
    return "\n".join(lines)


def default(item: Any) -> str:
    assert item.default is not MISSING
    if item.default == "":
        return "none"
    return f"`{str(item.default).lower() if isinstance(item.default, bool) else item.default}`"


@pytest.mark.parametrize("name", WITH_SETTINGS)
def test_every_setting_is_in_the_table_as_it_is_in_the_code(name):
    assert page(name) == with_settings(page(name)), "python -m tests.test_docs writes the table anew"


def with_settings(text: str) -> str:
    between = re.compile(r"(?<=<!-- settings -->\n).*?(?=<!-- /settings -->)", re.DOTALL)
    assert between.search(text)
    return between.sub(lambda _: settings_table() + "\n", text)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_setting_that_is_told_of_is_read_somewhere(path):
    code = [
        *ROOT.glob("app/**/*.py"),
        *(ROOT / name for name in ("Procfile", "Makefile", "gunicorn.conf.py")),
    ]
    known = {item.name.upper() for item in fields(Settings)} | set(
        re.findall(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b", "\n".join(file.read_text() for file in code))
    )
    told = set(re.findall(r"`([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)`", path.read_text()))
    assert told <= known


# Commands.


def commands(group: click.Group, *path: str) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)
        else:
            yield " ".join([*path, name]), command


def test_every_command_and_option_is_documented(app):
    table = page("docs/operator.md")
    for name, command in commands(app.cli):
        if name.split()[0] in FOREIGN:
            continue
        row = next((line for line in table.splitlines() if line.startswith(f"| `flask {name}")), None)
        assert row, f"docs/operator.md does not tell of: flask {name}"
        for param in command.params:
            if isinstance(param, click.Option) and param.name != "help":
                assert param.opts[0] in row, (
                    f"docs/operator.md does not tell of: flask {name} {param.opts[0]}"
                )
            elif isinstance(param, click.Argument):
                assert (param.name or "").upper() in row


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_command_that_is_told_of_exists(app, path):
    for words in re.findall(r"(?:^|[`( ])flask ((?:[a-z]+ ?)+)", path.read_text(), re.MULTILINE):
        command: click.Command | None = app.cli
        for word in words.split():
            if not isinstance(command, click.Group):
                break
            command = command.commands.get(word)
            assert command is not None, f"{path.name}: flask {words}"


# The API.


@pytest.fixture
def document(client) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/api/v1/openapi.json").json
    return found


def test_every_operation_is_documented_and_exists(document):
    told = set(re.findall(r"`(GET|POST|PUT|PATCH|DELETE) (/api/v1[^` ]*)`", page("docs/api.md")))
    made = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert told == made


def test_every_member_of_a_job_and_of_an_export_is_documented(document):
    told = page("docs/api.md")
    for shape in ("Job", "ExportRequest", "Artifact", "Progress", "JobError", "Problem", "Line", "Jobs"):
        for member in document["components"]["schemas"][shape]["properties"]:
            assert re.search(rf"`{member}`|\"{member}\"", told), f"{shape}.{member}"


def test_every_error_that_a_caller_may_get_is_documented():
    told = page("docs/api.md")
    for error in subclasses(errors.WaybillError):
        if error not in (errors.BadSettings, errors.LinkInvalid, errors.LinkExpired):
            assert f"`{error.code}`" in told, error.code


def subclasses(kind: type[errors.WaybillError]) -> Iterator[type[errors.WaybillError]]:
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield child
            yield from subclasses(child)


def test_the_problem_shown_is_the_one_that_is_sent(app, client, member):
    from app.extensions import db

    with app.app_context():
        _, secret = ApiToken.create(member, "docs")
        db.session.commit()
    body = {"report": "all_tasks", "params": {"since": "soon"}}
    answer = client.post("/api/v1/exports", json=body, headers={"Authorization": f"Bearer {secret}"})
    [shown] = blocks("docs/api.md", "json")
    assert json.loads(shown) == answer.json


# What to watch.


def told_metrics() -> set[str]:
    section = page("docs/operator.md").partition("\n### Metrics\n")[2].partition("\n### ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    return {name for row in rows for name in METRIC.findall(row)}


def test_every_metric_is_documented_and_exists(app):
    from app import monitoring
    from app.web.metrics import exposition

    with app.app_context():
        text = exposition(monitoring.look()).decode()
    made = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    assert told_metrics() == made
    used = {name for block in blocks("docs/operator.md", "yaml") for name in METRIC.findall(block)}
    assert {"waybill_findings", "waybill_info"} <= used <= made


def test_every_finding_is_documented_with_its_levels():
    from app.monitoring import CODES

    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \|", page("docs/operator.md"), re.MULTILINE)
    told = {code: levels for code, levels in rows if code in CODES}
    assert told.keys() == CODES.keys()
    for code, levels in CODES.items():
        assert set(re.findall("warning|critical", told[code])) == set(levels), code


# What can be tried, is.


def test_the_readme_s_report_is_in_order(tmp_path):
    [sql] = blocks("README.md", "sql")
    (tmp_path / "overdue_tasks.sql").write_text(sql)
    registry = Registry.load(str(tmp_path))
    assert registry.problems == ()
    assert registry.get("overdue_tasks").title == "Overdue tasks"
    assert len(sql.splitlines()) == 5


@pytest.mark.parametrize(
    "sql", re.findall(r"```sql\n(.*?)```", (ROOT / "docs/operator.md").read_text(), re.DOTALL)
)
def test_what_to_watch_can_be_asked(app, sql):
    from app.extensions import db

    with app.app_context():
        assert db.session.execute(db.text(sql)).all() == []


def test_the_systemd_units_run_what_the_procfile_runs():
    units = "\n".join(blocks("README.md", "ini"))
    started = re.findall(r"ExecStart(?:Pre)?=/srv/waybill/\.venv/bin/(.*)", units)
    procfile = [line.replace("${WORKER_THREADS:-4}", "4") for line in read_procfile().values()]
    assert started == [re.sub(r"^env \S+ ", "", line) for line in procfile]
    variables = re.findall(r"Environment=(dramatiq_\S+)", units)
    assert variables == [found[1] for line in procfile if (found := re.match(r"env (\S+) ", line))]


# Links and names of files.


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_link_leads_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_file_that_is_told_of_exists(path):
    for name in re.findall(r"(?<![\w/.])((?:app|actors|tests|migrations)/[\w./]*\w)", path.read_text()):
        assert (ROOT / name).exists(), name


if __name__ == "__main__":
    for name in WITH_SETTINGS:
        (ROOT / name).write_text(with_settings(page(name)))
