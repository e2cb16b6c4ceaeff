"""A stored produced file with its receipt, and who fetched it."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import BigInteger, DateTime, ForeignKey, Index, String, Text, cast, func, literal
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, column_property, mapped_column, relationship

from app.extensions import db
from app.models.job import Job
from app.models.user import User


class Artifact(db.Model):  # type: ignore[misc, name-defined]
    __tablename__ = "artifacts"
    __table_args__ = (
        Index("uq_artifacts_job", "job_id", unique=True),
        Index("ix_artifacts_key", "key"),
        Index("ix_artifacts_expiry", "expires_at", postgresql_where="removed_at IS NULL"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    # Where the bytes are in the storage; the attempt is part of it, so that no late writer overwrites it.
    # Artifacts of jobs that share a file have one key: the bytes stay as long as one of them lives.
    key: Mapped[str] = mapped_column(String(300))
    filename: Mapped[str] = mapped_column(String(255))
    content_type: Mapped[str] = mapped_column(String(100))
    bytes: Mapped[int] = mapped_column(BigInteger)
    rows: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    # The whole receipt: rows, bytes, sha256, params, snapshot time, format, dialect, attempt. An archive's
    # names every file in it, so it is read only where it is looked into.
    receipt: Mapped[dict[str, Any]] = mapped_column(JSONB, deferred=True)
    # When the data were read, as the receipt says.
    snapshot_at: Mapped[datetime | None] = column_property(
        cast(receipt[literal("snapshot_at")].astext, DateTime(timezone=True))
    )
    # Links of an earlier generation are dead; a revoked artifact has no good link at all.
    link_generation: Mapped[int] = mapped_column(default=1, server_default="1")
    link_revoked_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    created_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.clock_timestamp()
    )
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    # When the sweep took the bytes away; the receipt stays.
    removed_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))

    job: Mapped[Job] = relationship(lazy="joined")
    downloads: Mapped[list[Download]] = relationship(back_populates="artifact", order_by="Download.at")


class Download(db.Model):  # type: ignore[misc, name-defined]
    """One click on a link: when, by whom (if signed in), from where."""

    __tablename__ = "downloads"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    artifact_id: Mapped[UUID] = mapped_column(ForeignKey("artifacts.id", ondelete="CASCADE"), index=True)
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.clock_timestamp())
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    address: Mapped[str] = mapped_column(String(64))
    user_agent: Mapped[str] = mapped_column(Text)

    artifact: Mapped[Artifact] = relationship(back_populates="downloads")
    user: Mapped[User | None] = relationship()
