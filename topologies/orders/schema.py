"""The tables of the command side, as they are after the newest migration.

Money is integers in minor units, and so are points; times are epoch milliseconds. Text compares byte by byte on every
database, so that `Books` and `books` are two. `migrations/` makes these tables; a test holds the two to each other.
"""

from enum import StrEnum
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

from streams.events import NAME_CHARS

SHARDS: Final = 8
# Ids of the simulator's orders and of those typed by hand are smaller, so the two never meet.
FIRST_ORDER: Final = 1_000_000_000_000
KEY_CHARS: Final = 255
# An autoincremented key has to be INTEGER on SQLite, which has 64 bits there.
ID: Final = BigInteger().with_variant(Integer(), "sqlite")
MYSQL: Final[dict[str, Any]] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}


class OrderStatus(StrEnum):
    """Where an order is: `PLACED` until its payment is known; the last two hold neither stock nor points."""

    PLACED = "placed"
    PAID = "paid"
    CANCELLED = "cancelled"
    REFUNDED = "refunded"


class PaymentStatus(StrEnum):
    """Where an order's payment is; `VOID` is one that was never asked for, as the order was cancelled before."""

    REQUESTED = "requested"
    COMPLETED = "completed"
    FAILED = "failed"
    REFUNDED = "refunded"
    VOID = "void"


METADATA: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _amount(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False)


def _time(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False)


def _name(name: str, chars: int = NAME_CHARS, **more: Any) -> Column[str]:
    return Column(name, String(chars), nullable=False, **more)


users: Final = Table(
    "users",
    METADATA,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    _name("name"),
    _name("region"),
    _amount("points"),
    CheckConstraint("points >= 0", name="points"),
    **MYSQL,
)

products: Final = Table(
    "products",
    METADATA,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    _name("name"),
    _name("category"),
    _amount("price"),
    Column("stock", BigInteger, nullable=False),
    CheckConstraint("price >= 0", name="price"),
    CheckConstraint("stock >= 0", name="stock"),
    **MYSQL,
)

# `idempotency_key` is a customer's own name for a request, `body_hash` what it asked for, to tell a repeat from
# another request of the same name. Several orders without a key are no repeats: NULLs are distinct.
orders: Final = Table(
    "orders",
    METADATA,
    Column("id", ID, Identity(start=FIRST_ORDER), primary_key=True),
    Column("user_id", BigInteger, ForeignKey("users.id"), nullable=False),
    _name("status", 16),
    _amount("amount"),
    _amount("points_used"),
    _name("region"),
    _name("currency"),
    _time("created_at_ms"),
    _time("updated_at_ms"),
    Column("reason", String(NAME_CHARS)),
    Column("idempotency_key", String(KEY_CHARS)),
    Column("body_hash", String(64)),
    UniqueConstraint("user_id", "idempotency_key"),
    CheckConstraint("status IN ('placed', 'paid', 'cancelled', 'refunded')", name="status"),
    sqlite_autoincrement=True,
    mysql_auto_increment=str(FIRST_ORDER),
    **MYSQL,
)

order_lines: Final = Table(
    "order_lines",
    METADATA,
    Column("order_id", BigInteger, ForeignKey("orders.id"), primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("product_id", BigInteger, ForeignKey("products.id"), nullable=False),
    _name("category"),
    Column("quantity", Integer, nullable=False),
    _amount("price"),
    CheckConstraint("quantity >= 1", name="quantity"),
    **MYSQL,
)

# `attempts` counts what was asked of the gateway, `gateway_id` is its name for the payment.
payments: Final = Table(
    "payments",
    METADATA,
    Column("order_id", BigInteger, ForeignKey("orders.id"), primary_key=True, autoincrement=False),
    _name("status", 16),
    _amount("amount"),
    Column("attempts", Integer, nullable=False, default=0, server_default="0"),
    Column("gateway_id", String(NAME_CHARS)),
    Column("reason", String(NAME_CHARS)),
    _time("updated_at_ms"),
    CheckConstraint("status IN ('requested', 'completed', 'failed', 'refunded', 'void')", name="status"),
    **MYSQL,
)

# What has to be published: `value` is the very bytes of the record. A row without `sent_offset` is still to be sent.
outbox: Final = Table(
    "outbox",
    METADATA,
    Column("id", ID, primary_key=True, autoincrement=True),
    Column("shard", Integer, nullable=False),
    _name("topic", 249),
    Column("record_key", LargeBinary(300), nullable=False),
    Column("value", LargeBinary(), nullable=False),
    _name("event_id"),
    _time("created_at_ms"),
    Column("order_id", BigInteger, nullable=False),
    Column("sent_partition", Integer),
    Column("sent_offset", BigInteger),
    UniqueConstraint("event_id"),
    Index(None, "shard", "sent_offset", "id"),
    Index(None, "order_id"),
    sqlite_autoincrement=True,
    **MYSQL,
)

# Who relays a shard, until when; `epoch` rises with each new owner. There is a row for each shard from the start.
relay_leases: Final = Table(
    "relay_leases",
    METADATA,
    Column("shard", Integer, primary_key=True, autoincrement=False),
    Column("owner", String(NAME_CHARS)),
    _time("until_ms"),
    Column("epoch", BigInteger, nullable=False),
    **MYSQL,
)
