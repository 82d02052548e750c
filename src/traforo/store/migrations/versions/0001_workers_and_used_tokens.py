"""Workers and used token ids.

Revision ID: 0001
Revises: -
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the first tables."""
    op.create_table(
        "workers",
        sa.Column("worker_id", sa.String(128), nullable=False),
        sa.Column("hostname", sa.String(253), nullable=False),
        sa.Column("hash", sa.String(32), nullable=False),
        sa.Column("base_url", sa.String(2048), nullable=False),
        sa.Column("hardware_sku", sa.String(128), nullable=False),
        sa.Column("virtualizations", sa.JSON(), nullable=False),
        sa.Column("total_cores", sa.Double(), nullable=False),
        sa.Column("total_memory_mib", sa.BigInteger(), nullable=False),
        sa.Column("max_live_sandboxes", sa.BigInteger(), nullable=False),
        sa.Column("registered_at", sa.Double(), nullable=False),
        sa.Column("heartbeat_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.Column("live_sandboxes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("worker_id", name="pk_workers"),
        sa.UniqueConstraint("hash", name="uq_workers_hash"),
    )
    op.create_table(
        "used_tokens",
        sa.Column("jti", sa.String(128), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("jti", name="pk_used_tokens"),
    )
    op.create_index("ix_used_tokens_expires_at", "used_tokens", ["expires_at"])


def downgrade() -> None:
    """Drop them again."""
    op.drop_table("used_tokens")
    op.drop_table("workers")
