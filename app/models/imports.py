"""An import: an upload, how it is read, where its columns go, and what came of it.

It has no status of its own. Its jobs do: each is one step of it ("dry-run", "apply" or "undo").
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import BigInteger, CheckConstraint, DateTime, ForeignKey, Index, String, Text, func
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.extensions import db
from app.models.upload import Upload
from app.models.user import User

DRY_RUN, APPLY, UNDO = "dry-run", "apply", "undo"
STEPS = (DRY_RUN, APPLY, UNDO)
INSERT, UPSERT, UPDATE, SKIP = "insert", "upsert", "update", "skip"
MODES = (INSERT, UPSERT, UPDATE, SKIP)


class Import(db.Model):  # type: ignore[misc, name-defined]
    __tablename__ = "imports"
    __table_args__ = (
        CheckConstraint("mode IN ('insert', 'upsert', 'update', 'skip')", name="mode"),
        Index("ix_imports_owner", "owner_id", "created_at"),
        Index("ix_imports_upload", "upload_id"),
        Index("ix_imports_kept", "importer", postgresql_where="forgotten_at IS NULL"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    owner_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    # The importer's key, and its title as it was when asked.
    importer: Mapped[str] = mapped_column(String(100))
    title: Mapped[str] = mapped_column(String(200))
    upload_id: Mapped[UUID] = mapped_column(ForeignKey("uploads.id"))
    # The import whose refused rows this one brings back, corrected.
    parent_id: Mapped[UUID | None] = mapped_column(ForeignKey("imports.id", ondelete="SET NULL"))
    # How the file is read: app.imports.file.dialect.Dialect as JSON.
    dialect: Mapped[dict[str, Any]] = mapped_column(JSONB)
    # The file's columns, in its order.
    header: Mapped[list[str]] = mapped_column(ARRAY(Text))
    # The importer's column -> the place of the file's column (from 0), or None: not in the file.
    mapping: Mapped[dict[str, int | None]] = mapped_column(JSONB)
    mode: Mapped[str] = mapped_column(String(10))
    # Stop when more rows are refused than this, or more than so many per cent of those read; None: never.
    reject_limit: Mapped[int | None]
    reject_percent: Mapped[int | None]
    # Rows a second at most, so that the target breathes; None: as fast as it goes.
    rate: Mapped[int | None] = mapped_column(BigInteger)
    # What the dry run found, and what the apply and the undo did: app.imports.rows.Counts as JSON.
    forecast: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    result: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    undone: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.clock_timestamp()
    )
    # When what it kept in the target was dropped: since then it can't be undone.
    forgotten_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))

    owner: Mapped[User] = relationship(lazy="joined")
    upload: Mapped[Upload] = relationship(lazy="joined")
