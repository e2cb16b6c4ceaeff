"""What a person chose the last time: forms begin with it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ForeignKey, String
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.extensions import db


class ColumnChoice(db.Model):  # type: ignore[misc, name-defined]
    """The columns of one report, in their order."""

    __tablename__ = "column_choices"

    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    report: Mapped[str] = mapped_column(String(100), primary_key=True)
    columns: Mapped[list[str]] = mapped_column(ARRAY(String))


class MappingChoice(db.Model):  # type: ignore[misc, name-defined]
    """Where the columns of files with one header went, and how such files were read."""

    __tablename__ = "mapping_choices"

    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    importer: Mapped[str] = mapped_column(String(100), primary_key=True)
    header_sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    mapping: Mapped[dict[str, int | None]] = mapped_column(JSONB)
    dialect: Mapped[dict[str, Any]] = mapped_column(JSONB)
