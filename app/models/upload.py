"""A file that somebody sends in. It is kept as blocks, each an object of its own: a cut costs one block."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import BigInteger, CheckConstraint, DateTime, ForeignKey, Index, String, Text, func
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.extensions import db
from app.models.sentence import Sentence
from app.models.user import User

RECEIVING, COMPLETE, REFUSED = "receiving", "complete", "refused"


class Upload(db.Model):  # type: ignore[misc, name-defined]
    """Its block `n` (from 0) lies at `uploads/<id>/<names[n]>` and has `sizes[n]` bytes.

    Each sender gives its blocks names of their own, so that two at once overwrite nothing of each other.
    """

    __tablename__ = "uploads"
    __table_args__ = (
        CheckConstraint("status IN ('receiving', 'complete', 'refused')", name="status"),
        Index("ix_uploads_expiry", "expires_at", postgresql_where="removed_at IS NULL"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    owner_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    filename: Mapped[str] = mapped_column(String(255))
    status: Mapped[str] = mapped_column(String(10), default=RECEIVING)
    # Why it was refused: fit to show its owner.
    refusal: Mapped[str | None] = mapped_column(Sentence)
    names: Mapped[list[str]] = mapped_column(ARRAY(Text), default=list)
    sizes: Mapped[list[int]] = mapped_column(ARRAY(BigInteger), default=list)
    # What its sender said of it before, if anything.
    declared_bytes: Mapped[int | None] = mapped_column(BigInteger)
    declared_sha256: Mapped[str | None] = mapped_column(String(64))
    # Of all its bytes, where they came in one go or were read through since.
    sha256: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.clock_timestamp()
    )
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    # When its bytes were taken away; what is known of it stays.
    removed_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))

    owner: Mapped[User] = relationship(lazy="joined")

    @property
    def bytes(self) -> int:
        """Received so far."""
        return sum(self.sizes)
