"""Living workers and what they listen to, so that a page can say "no worker is listening"."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import DateTime, String, func
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from app.extensions import db


class Worker(db.Model):  # type: ignore[misc, name-defined]
    __tablename__ = "workers"

    # host:pid:boot
    id: Mapped[str] = mapped_column(String(100), primary_key=True)
    queues: Mapped[list[str]] = mapped_column(ARRAY(String(20)))
    threads: Mapped[int]
    started_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.clock_timestamp()
    )
    seen_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.clock_timestamp())
