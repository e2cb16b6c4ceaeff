"""How numbers, sizes, times and durations read on a page. Pure, but for `ago`, which knows the time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from flask import Flask
from markupsafe import Markup, escape

from app.events import rfc3339
from app.params.kinds import Reference

BYTE_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")
# Values of a list that are said.
LISTED = 5
SPANS = ((86400, "day"), (3600, "hour"), (60, "minute"))


def init_app(app: Flask) -> None:
    """Make the filters known to every template."""
    app.add_template_filter(grouped)
    app.add_template_filter(size)
    app.add_template_filter(duration)
    app.add_template_filter(exact)
    app.add_template_filter(clock_time)
    app.add_template_filter(ago)
    app.add_template_filter(rfc3339)
    app.add_template_filter(spoken)


def grouped(number: int) -> str:
    """1234567 -> "1,234,567"."""
    return f"{number:,}"


def size(count: int) -> str:
    """Bytes in powers of 1000, three digits that matter: 85_312_000 -> "85.3 MB"."""
    if count < 1000:
        return f"{count} byte{'' if count == 1 else 's'}"
    value, unit = float(count), 0
    while value >= 999.5 and unit < len(BYTE_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{digits}f} {BYTE_UNITS[unit]}"


def duration(span: timedelta | float) -> str:
    """In the two units that matter: 3725 -> "1 h 2 min", 0.4 -> "0.4 s"; whole seconds stay whole."""
    seconds = max(span.total_seconds() if isinstance(span, timedelta) else span, 0)
    if seconds < 9.95 and not isinstance(span, int):
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def exact(at: datetime) -> str:
    """2026-01-31 09:15:00 UTC."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def clock_time(at: datetime) -> str:
    """The time of a log line, in UTC: 09:15:00.123."""
    return at.astimezone(UTC).strftime("%H:%M:%S.") + f"{at.microsecond // 1000:03d}"


def ago(at: datetime) -> Markup:
    """A <time> that says "3 minutes ago", with the exact time on hover; static/times.js keeps it true."""
    told = Markup('<time datetime="{}" title="{}" data-relative>{}</time>')
    return told.format(rfc3339(at), exact(at), relative(at, datetime.now(UTC)))


def relative(at: datetime, now: datetime) -> str:
    """The words of `ago`; static/times.js says the same."""
    seconds = round((at - now).total_seconds())
    for length, unit in SPANS:
        count = abs(seconds) // length
        if count:
            words = f"{count} {unit}{'' if count == 1 else 's'}"
            return f"{words} ago" if seconds < 0 else f"in {words}"
    return "just now" if seconds <= 0 else "in less than a minute"


def spoken(value: object) -> Markup:
    """A frozen param's value as a person says it; nothing is "any"."""
    if value is None or value == []:
        return Markup('<span class="muted">any</span>')
    if isinstance(value, bool):
        return Markup("yes" if value else "no")
    if kept := Reference.of(value):
        return Markup(f"{kept.count:,} values")
    if isinstance(value, list):
        more = f" and {len(value) - LISTED:,} more" if len(value) > LISTED else ""
        return escape(", ".join(str(item) for item in value[:LISTED]) + more)
    return escape(str(value))
