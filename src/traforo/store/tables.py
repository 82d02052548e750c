"""The tables, as the newest migration leaves them. Only what SQLite and PostgreSQL both have is used.

A table is changed by a migration first and here second; a test holds the two together.
"""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)

members = sa.Table(
    "workers",
    metadata,
    sa.Column("worker_id", sa.String(128), primary_key=True),
    sa.Column("hostname", sa.String(253), nullable=False),
    sa.Column("hash", sa.String(32), nullable=False, unique=True),
    sa.Column("base_url", sa.String(2048), nullable=False),
    sa.Column("hardware_sku", sa.String(128), nullable=False),
    sa.Column("virtualizations", sa.JSON, nullable=False),
    sa.Column("total_cores", sa.Double, nullable=False),
    sa.Column("total_memory_mib", sa.BigInteger, nullable=False),
    sa.Column("max_live_sandboxes", sa.BigInteger, nullable=False),
    sa.Column("registered_at", sa.Double, nullable=False),
    sa.Column("heartbeat_at", sa.Double, nullable=False),
    sa.Column("expires_at", sa.Double, nullable=False),
    sa.Column("live_sandboxes", sa.BigInteger, nullable=False),
)

used_tokens = sa.Table(
    "used_tokens",
    metadata,
    sa.Column("jti", sa.String(128), primary_key=True),
    sa.Column("expires_at", sa.Double, nullable=False, index=True),
)
