"""Users, products, orders, payments, the outbox and the relays' leases.

A migration stands for itself and is never changed: what the code's tables become later is another one's.
"""

from typing import Any

from alembic import op
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Identity,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    UniqueConstraint,
    inspect,
    text,
)

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SHARDS = 8
FIRST_ORDER = 1_000_000_000_000
ID = BigInteger().with_variant(Integer(), "sqlite")
MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
INDEXES = {"ix_outbox_shard_sent_offset_id": ["shard", "sent_offset", "id"], "ix_outbox_order_id": ["order_id"]}


def _tables() -> list[Table]:
    into = MetaData()
    return [
        Table(
            "users",
            into,
            Column("id", BigInteger, nullable=False, autoincrement=False),
            Column("name", String(256), nullable=False),
            Column("region", String(256), nullable=False),
            Column("points", BigInteger, nullable=False),
            PrimaryKeyConstraint("id", name="pk_users"),
            CheckConstraint("points >= 0", name="ck_users_points"),
            **MYSQL,
        ),
        Table(
            "products",
            into,
            Column("id", BigInteger, nullable=False, autoincrement=False),
            Column("name", String(256), nullable=False),
            Column("category", String(256), nullable=False),
            Column("price", BigInteger, nullable=False),
            Column("stock", BigInteger, nullable=False),
            PrimaryKeyConstraint("id", name="pk_products"),
            CheckConstraint("price >= 0", name="ck_products_price"),
            CheckConstraint("stock >= 0", name="ck_products_stock"),
            **MYSQL,
        ),
        Table(
            "orders",
            into,
            Column("id", ID, Identity(start=FIRST_ORDER), nullable=False),
            Column("user_id", BigInteger, nullable=False),
            Column("status", String(16), nullable=False),
            Column("amount", BigInteger, nullable=False),
            Column("points_used", BigInteger, nullable=False),
            Column("region", String(256), nullable=False),
            Column("currency", String(256), nullable=False),
            Column("created_at_ms", BigInteger, nullable=False),
            Column("updated_at_ms", BigInteger, nullable=False),
            Column("reason", String(256)),
            Column("idempotency_key", String(255)),
            Column("body_hash", String(64)),
            PrimaryKeyConstraint("id", name="pk_orders"),
            ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_orders_user_id"),
            UniqueConstraint("user_id", "idempotency_key", name="uq_orders_user_id_idempotency_key"),
            CheckConstraint("status IN ('placed', 'paid', 'cancelled', 'refunded')", name="ck_orders_status"),
            sqlite_autoincrement=True,
            mysql_auto_increment=str(FIRST_ORDER),
            **MYSQL,
        ),
        Table(
            "order_lines",
            into,
            Column("order_id", BigInteger, nullable=False, autoincrement=False),
            Column("number", Integer, nullable=False, autoincrement=False),
            Column("product_id", BigInteger, nullable=False),
            Column("category", String(256), nullable=False),
            Column("quantity", Integer, nullable=False),
            Column("price", BigInteger, nullable=False),
            PrimaryKeyConstraint("order_id", "number", name="pk_order_lines"),
            ForeignKeyConstraint(["order_id"], ["orders.id"], name="fk_order_lines_order_id"),
            ForeignKeyConstraint(["product_id"], ["products.id"], name="fk_order_lines_product_id"),
            CheckConstraint("quantity >= 1", name="ck_order_lines_quantity"),
            **MYSQL,
        ),
        Table(
            "payments",
            into,
            Column("order_id", BigInteger, nullable=False, autoincrement=False),
            Column("status", String(16), nullable=False),
            Column("amount", BigInteger, nullable=False),
            Column("attempts", Integer, nullable=False, server_default="0"),
            Column("gateway_id", String(256)),
            Column("reason", String(256)),
            Column("updated_at_ms", BigInteger, nullable=False),
            PrimaryKeyConstraint("order_id", name="pk_payments"),
            ForeignKeyConstraint(["order_id"], ["orders.id"], name="fk_payments_order_id"),
            CheckConstraint(
                "status IN ('requested', 'completed', 'failed', 'refunded', 'void')", name="ck_payments_status"
            ),
            **MYSQL,
        ),
        Table(
            "outbox",
            into,
            Column("id", ID, nullable=False, autoincrement=True),
            Column("shard", Integer, nullable=False),
            Column("topic", String(249), nullable=False),
            Column("record_key", LargeBinary(300), nullable=False),
            Column("value", LargeBinary, nullable=False),
            Column("event_id", String(256), nullable=False),
            Column("created_at_ms", BigInteger, nullable=False),
            Column("order_id", BigInteger, nullable=False),
            Column("sent_partition", Integer),
            Column("sent_offset", BigInteger),
            PrimaryKeyConstraint("id", name="pk_outbox"),
            UniqueConstraint("event_id", name="uq_outbox_event_id"),
            sqlite_autoincrement=True,
            **MYSQL,
        ),
        Table(
            "relay_leases",
            into,
            Column("shard", Integer, nullable=False, autoincrement=False),
            Column("owner", String(256)),
            Column("until_ms", BigInteger, nullable=False),
            Column("epoch", BigInteger, nullable=False),
            PrimaryKeyConstraint("shard", name="pk_relay_leases"),
            **MYSQL,
        ),
    ]


def upgrade() -> None:
    """Make what is missing: a run that was broken off on MySQL has made some of it."""
    connection = op.get_bind()
    there = inspect(connection).get_table_names()
    for table in _tables():
        if table.name not in there:
            table.create(connection)
    indexed = {index["name"] for index in inspect(connection).get_indexes("outbox")}
    for name, columns in INDEXES.items():
        if name not in indexed:
            op.create_index(name, "outbox", columns)
    if connection.dialect.name == "sqlite":
        connection.execute(text("DELETE FROM sqlite_sequence WHERE name = 'orders'"))
        connection.execute(
            text("INSERT INTO sqlite_sequence (name, seq) VALUES ('orders', :before)"), {"before": FIRST_ORDER - 1}
        )
    leased = set(connection.execute(text("SELECT shard FROM relay_leases")).scalars())
    for shard in sorted(set(range(SHARDS)) - leased):
        connection.execute(
            text("INSERT INTO relay_leases (shard, owner, until_ms, epoch) VALUES (:shard, NULL, 0, 0)"),
            {"shard": shard},
        )
