"""What a customer is told of an event. Pure: the same event always makes the same notice."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from streams.events import OrderEvent, PaymentNotification, event_time_ms
from streams.taking import Taken

# Currencies whose smallest unit is the whole one (ISO 4217); three have thousandths; all others have hundredths.
WHOLE: Final = frozenset("BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF".split())
THOUSANDTHS: Final = frozenset("BHD IQD JOD KWD LYD OMR TND".split())

SUBJECTS: Final = {
    "order.placed": "We have your order {order}",
    "order.paid": "Your order {order} is paid",
    "order.cancelled": "Your order {order} is cancelled",
    "order.refunded": "Your order {order} is refunded",
    "payment.completed": "Payment for order {order} received",
    "payment.failed": "Payment for order {order} failed",
    "payment.refunded": "Payment for order {order} returned",
}
TEXTS: Final = {
    "order.placed": "Thank you for your order over {money}. You will hear from us when it is paid.",
    "order.paid": "Your order over {money} is paid and on its way.",
    "order.cancelled": "Your order over {money} is cancelled. What you have paid for it comes back to you.",
    "order.refunded": "You get {money} back for your order.",
    "payment.completed": "We have received {money} for your order.",
    "payment.failed": "A payment of {money} for your order did not succeed.",
    "payment.refunded": "A payment of {money} for your order was returned to you.",
}


@dataclass(frozen=True)
class Notice:
    """One thing to tell one customer. `id` is the same whenever it comes again; `at_ms` is the event's time."""

    id: str
    kind: str
    user: str
    order: str
    subject: str
    text: str
    amount: int
    currency: str
    at_ms: int

    def as_json(self) -> dict[str, Any]:
        """As the log has it and a webhook gets it; the amount is in minor units."""
        return {
            "id": self.id,
            "type": self.kind,
            "userId": self.user,
            "orderId": self.order,
            "subject": self.subject,
            "text": self.text,
            "amount": self.amount,
            "currency": self.currency,
            "occurredAt": datetime.fromtimestamp(self.at_ms / 1000, UTC).isoformat(timespec="milliseconds"),
        }


def notice_of(taken: Taken, currency: str) -> Notice:
    """The notice of an order's or a payment's event; `currency` is the shop's."""
    event: OrderEvent | PaymentNotification = taken.event
    own = getattr(event, "currency", None) or currency
    said = {"order": one_line(str(event.order_id)), "money": money(event.amount, own)}
    return Notice(
        id=taken.id,
        kind=event.event_type,
        user=str(event.user_id),
        order=str(event.order_id),
        subject=SUBJECTS[event.event_type].format(**said),
        text=TEXTS[event.event_type].format(**said),
        amount=event.amount,
        currency=own,
        at_ms=_readable(event_time_ms(event, taken.record.timestamp)),
    )


def money(minor: int, currency: str) -> str:
    """An amount as one writes it.

    >>> money(50_000, "KRW"), money(123_456, "EUR"), money(1, "KWD")
    ('50,000 KRW', '1,234.56 EUR', '0.001 KWD')
    """
    digits = 0 if currency in WHOLE else 3 if currency in THOUSANDTHS else 2
    whole, part = divmod(minor, 10**digits)
    return f"{whole:,}{f'.{part:0{digits}d}' if digits else ''} {one_line(currency)}"


def one_line(text: str) -> str:
    r"""Without what could end a line, or a header, and no longer than a subject should be.

    >>> one_line("1\r\nBcc: all@shop.example")
    '1 Bcc: all@shop.example'
    """
    flat = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(flat.split())[:100]


def _readable(at_ms: int) -> int:
    return min(max(at_ms, 0), 253_402_300_799_000)  # the calendar's last second
