"""clocks, expiring tokens, parts that lie in one object, reasons of mails that were given up

Revision ID: 0002
Revises: 0001
Create Date: 2026-11-22 13:30:00.000000

"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

# revision identifiers, used by Alembic.
revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade():
    op.create_table(
        "clocks",
        sa.Column("id", sa.String(length=100), nullable=False),
        sa.Column("passes", sa.String(length=10), nullable=False),
        sa.Column(
            "seen_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("failing", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
        sa.PrimaryKeyConstraint("id", "passes", name=op.f("pk_clocks")),
    )
    op.add_column("api_tokens", sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index("ix_jobs_finished", "jobs", ["finished_at"], unique=False)
    op.add_column("deliveries", sa.Column("error_code", sa.String(length=50), nullable=True))
    op.create_index(
        "ix_deliveries_given_up",
        "deliveries",
        ["given_up_at"],
        unique=False,
        postgresql_where="given_up_at IS NOT NULL",
    )
    op.add_column("parts", sa.Column("start", sa.BigInteger(), server_default="0", nullable=False))


def downgrade():
    op.drop_column("parts", "start")
    op.drop_index(
        "ix_deliveries_given_up", table_name="deliveries", postgresql_where="given_up_at IS NOT NULL"
    )
    op.drop_column("deliveries", "error_code")
    op.drop_index("ix_jobs_finished", table_name="jobs")
    op.drop_column("api_tokens", "expires_at")
    op.drop_table("clocks")
