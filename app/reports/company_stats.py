"""One row for each company, put together in several steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from app.reports import Column, Param, Params, Report, ReportContext

# Each counts something per company as of a moment: (company id, figures...).
MEMBERS = """
    SELECT company_id, count(*), count(*) FILTER (WHERE active)
    FROM members WHERE joined_on <= :as_of GROUP BY company_id
"""
TASKS = """
    SELECT project.company_id,
        count(*),
        count(*) FILTER (WHERE completed_at <= :as_of),
        round(avg(extract(epoch FROM completed_at - tasks.created_at) / 86400)
            FILTER (WHERE completed_at <= :as_of), 2)
    FROM tasks JOIN projects AS project ON project.id = tasks.project_id
    WHERE tasks.created_at <= :as_of GROUP BY project.company_id
"""
CAMPAIGNS = """
    SELECT member.company_id, count(*) FILTER (WHERE kind = 'sent'), count(*) FILTER (WHERE kind = 'clicked')
    FROM campaign_events AS event JOIN members AS member ON member.id = event.member_id
    WHERE occurred_at <= :as_of GROUP BY member.company_id
"""
INVOICES = """
    SELECT
        company_id,
        count(*),
        count(*) FILTER (WHERE due_on < :as_of AND (paid_on IS NULL OR paid_on > :as_of))
    FROM invoices WHERE issued_on <= :as_of GROUP BY company_id
"""
COMPANIES = """
    SELECT id, name, country, plan, seats FROM companies
    WHERE created_at <= :as_of AND (:plan IS NULL OR plan = :plan) ORDER BY name, id
"""


class CompanyStats(Report):
    title = "Company statistics"
    description = "One row for each company: people, work, mails and bills, counted step by step."
    group = "People"
    filename = "company-stats-{date}"
    params = Params(
        [
            Param(
                "as_of",
                "datetime",
                label="As of",
                help="What came later is not counted.",
                default="now",
                required=True,
                edge="end",
            ),
            Param("plan", "enum", choices=("free", "team", "business", "enterprise")),
            Param(
                "min_members",
                "int",
                label="Members, at least",
                help="Leaves smaller companies out.",
                default=1,
                min=0,
                max=1000,
            ),
        ]
    )
    columns = (
        Column("company", "Name of the company"),
        Column("country", "ISO 3166 code"),
        Column("plan", "What the company pays for"),
        Column("members", "People who have joined"),
        Column("seats_used_percent", "Active members for each hundred seats"),
        Column("tasks", "Tasks written down"),
        Column("tasks_done_percent", "Finished ones of a hundred; empty without tasks"),
        Column("days_to_done", "Mean days from writing a task down to finishing it; empty without any"),
        Column("mails_clicked_percent", "Clicks for each hundred mails; empty without mails"),
        Column("invoices", "Invoices written"),
        Column("invoices_late", "Of these, due and not paid"),
    )

    def rows(self, params: Mapping[str, Any], context: ReportContext) -> Iterator[Sequence[object]]:
        as_of = params["as_of"]
        context.log(f"Companies as of {as_of:%Y-%m-%d %H:%M} UTC.")
        companies = list(context.query(COMPANIES, as_of=as_of, plan=params["plan"]))
        figures: list[dict[int, tuple[Any, ...]]] = []
        for what, sql in (
            ("members", MEMBERS),
            ("tasks", TASKS),
            ("mails", CAMPAIGNS),
            ("invoices", INVOICES),
        ):
            figures.append({row[0]: row[1:] for row in context.query(sql, as_of=as_of)})
            context.log(f"Counted the {what} of {len(figures[-1]):,} companies.")
        kept = 0
        for done, company in enumerate(companies, 1):
            row = _row(company, figures)
            if row[3] >= (params["min_members"] or 0):
                kept += 1
                yield row
            context.progress(done, len(companies))
        context.log(f"Kept {kept:,} of {len(companies):,} companies.")


def _row(company: tuple[Any, ...], figures: list[dict[int, tuple[Any, ...]]]) -> tuple[Any, ...]:
    key, name, country, plan, seats = company
    of_members, of_tasks, of_mails, of_invoices = figures
    members, active = of_members.get(key, (0, 0))
    tasks, tasks_done, days = of_tasks.get(key, (0, 0, None))
    sent, clicked = of_mails.get(key, (0, 0))
    return (
        *(name, country, plan, members, _percent(active, seats), tasks, _percent(tasks_done, tasks), days),
        *(_percent(clicked, sent), *of_invoices.get(key, (0, 0))),
    )


def _percent(part: int, whole: int) -> float | None:
    return round(100 * part / whole, 1) if whole else None
