"""Telling a requester how a job ended. The row is its own outbox: made with the final status."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import DateTime, ForeignKey, Index, String, func
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.extensions import db
from app.models.job import Job
from app.models.sentence import Sentence


class Delivery(db.Model):  # type: ignore[misc, name-defined]
    __tablename__ = "deliveries"
    __table_args__ = (
        # Once per job, kind and ending: a job that failed, was retried and succeeded tells of both.
        Index("uq_deliveries_job", "job_id", "name", "attempt", unique=True),
        Index(
            "ix_deliveries_due", "next_attempt_at", postgresql_where="sent_at IS NULL AND given_up_at IS NULL"
        ),
        Index("ix_deliveries_given_up", "given_up_at", postgresql_where="given_up_at IS NOT NULL"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    # Which mail: the folder of templates/mail ("ready", "failed").
    name: Mapped[str] = mapped_column(String(20))
    # The job's attempt that ended it.
    attempt: Mapped[int]
    message_id: Mapped[str] = mapped_column(String(200), unique=True)
    created_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.clock_timestamp()
    )
    # How often sending was begun, and until when another sender keeps its hands off.
    tries: Mapped[int] = mapped_column(default=0, server_default="0")
    next_attempt_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.clock_timestamp()
    )
    # When its message went to the queue; older than `next_attempt_at` means: not for the try that is due.
    dispatched_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    sent_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    given_up_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    # Why the last try failed: the error's stable code, and its message.
    error_code: Mapped[str | None] = mapped_column(String(50))
    last_error: Mapped[str | None] = mapped_column(Sentence)

    job: Mapped[Job] = relationship(lazy="joined")
