"""What a person chose the last time: the form of a report begins with it."""

from __future__ import annotations

from sqlalchemy import ForeignKey, String
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from app.extensions import db


class ColumnChoice(db.Model):  # type: ignore[misc, name-defined]
    """The columns of one report, in their order."""

    __tablename__ = "column_choices"

    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    report: Mapped[str] = mapped_column(String(100), primary_key=True)
    columns: Mapped[list[str]] = mapped_column(ARRAY(String))
