"""The clocks and their last passes, so that a page can say "no clock is running"."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import DateTime, String, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.extensions import db

# What a pass is over: what people wait for, or what needs the storage and may take long.
PROMPT, SLOW = "prompt", "slow"


class Clock(db.Model):  # type: ignore[misc, name-defined]
    """One clock's passes of one kind. Its rows outlive it, and tell since when there is none."""

    __tablename__ = "clocks"

    # host:pid:boot
    id: Mapped[str] = mapped_column(String(100), primary_key=True)
    passes: Mapped[str] = mapped_column(String(10), primary_key=True)
    # When the last pass ended; before the first one, when the clock began.
    seen_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.clock_timestamp())
    # The steps that failed in it -> what stood in their way.
    failing: Mapped[dict[str, str]] = mapped_column(JSONB, default=dict, server_default="{}")
