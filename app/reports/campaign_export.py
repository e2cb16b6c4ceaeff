"""What came of each campaign, one file for each, and a summary: several files in one archive."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from app.reports import Bundle, File, Param, Params, Query, ReportContext

CAMPAIGNS = """
    SELECT campaign.id, campaign.name, campaign.channel, campaign.starts_at, campaign.budget,
        count(*),
        count(*) FILTER (WHERE event.kind = 'sent'),
        count(*) FILTER (WHERE event.kind = 'opened'),
        count(*) FILTER (WHERE event.kind = 'clicked'),
        count(*) FILTER (WHERE event.kind = 'unsubscribed')
    FROM campaigns AS campaign JOIN campaign_events AS event ON event.campaign_id = campaign.id
    WHERE (:channel IS NULL OR campaign.channel = :channel)
        AND (:since IS NULL OR campaign.starts_at >= :since)
    GROUP BY campaign.id ORDER BY campaign.id
"""
EVENTS = """
    SELECT event.id, event.occurred_at, event.kind, member.email, member.name, event.details
    FROM campaign_events AS event JOIN members AS member ON member.id = event.member_id
    WHERE event.campaign_id = :campaign ORDER BY event.id
"""
COLUMNS = (
    *("id", "name", "channel", "starts_at", "budget"),
    *("events", "sent", "opened", "clicked", "unsubscribed"),
)
# A campaign's row above: its number, its name, and where its events are counted.
ID, NAME, COUNT = 0, 1, 5


class CampaignExport(Bundle):
    title = "Campaigns, a file each"
    description = "Every campaign's events in a file of its own, and a summary of all, in one archive."
    group = "Campaigns"
    filename = "campaigns-{date}"
    personal = False
    params = Params(
        [
            Param("channel", "enum", choices=("email", "web", "event", "post")),
            Param("since", "date", label="Begun since", help="Leaves earlier campaigns out."),
        ]
    )

    def files(self, params: Mapping[str, Any], context: ReportContext) -> Iterator[File]:
        campaigns = list(context.query(CAMPAIGNS, channel=params["channel"], since=params["since"]))
        done, total = 0, sum(row[COUNT] for row in campaigns)
        context.log(f"{len(campaigns):,} campaigns with {total:,} events.")
        for campaign in campaigns:
            context.progress(done, total)
            yield File(f"{campaign[ID]:03} {campaign[NAME]}", Query(EVENTS, campaign=campaign[ID]))
            done += campaign[COUNT]
        yield File("summary", campaigns, COLUMNS)
