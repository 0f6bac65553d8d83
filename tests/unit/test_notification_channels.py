"""Mail and webhook against servers of this process: what arrives, and what each failure means."""

import asyncio
import base64
import hashlib
import hmac
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email import message_from_bytes
from email.message import Message
from typing import Any

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from aiosmtpd.smtp import SMTP as MailServer

from streams.errors import MillraceError
from topologies.notifications.channels import Away, NotNow, Refused
from topologies.notifications.mail import MailChannel, MailSettings, mail_of, message_id
from topologies.notifications.notices import Notice
from topologies.notifications.webhook import WebhookChannel, key_of


def notice(name: str = "order-1-placed", user: str = "7", **fields: Any) -> Notice:
    said = {"subject": "We have your order 1", "text": "Thank you.", "amount": 5, "currency": "KRW", "at_ms": 1_000}
    return Notice(name, "order.placed", user, "1", **{**said, **fields})


class Mailbox:
    """A mail server's handler: keeps mails, and answers what a test wants."""

    def __init__(self) -> None:
        self.mails: list[tuple[list[str], Message]] = []
        self.answers: list[str] = []
        self.connections = 0

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        answer = self.answers.pop(0) if self.answers else "250 OK"
        if answer.startswith("2"):
            self.mails.append((envelope.rcpt_tos, message_from_bytes(envelope.content)))
        return answer


@asynccontextmanager
async def mail_server(mailbox: Mailbox) -> AsyncIterator[int]:
    def connected() -> MailServer:
        mailbox.connections += 1
        return MailServer(mailbox, enable_SMTPUTF8=False, loop=asyncio.get_running_loop())

    server = await asyncio.get_running_loop().create_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


def settings(port: int, to: str = "user-{user}@shop.example") -> MailSettings:
    return MailSettings("127.0.0.1", port, "shop@shop.example", to, "none")


@asynccontextmanager
async def mailing(mailbox: Mailbox) -> AsyncIterator[MailChannel]:
    async with mail_server(mailbox) as port:
        channel = MailChannel(settings(port))
        await channel.open()
        try:
            yield channel
        finally:
            await channel.close()
            await asyncio.sleep(0)


async def test_a_mail_has_the_notices_id_and_is_the_same_when_it_comes_again() -> None:
    mailbox = Mailbox()
    async with mailing(mailbox) as channel:
        for _ in range(2):
            await channel.send(notice())
    (to, first), (_, second) = mailbox.mails
    assert to == ["user-7@shop.example"]
    assert first["Message-ID"] == "<order-1-placed@shop.example>"
    assert first["Subject"] == "We have your order 1"
    assert first.as_bytes() == second.as_bytes()
    assert mailbox.connections == 1


@pytest.mark.parametrize(
    ("answer", "means"),
    [("451 later", NotNow), ("552 too much", Refused), ("550 no such user", Refused), ("421 closing", Away)],
)
async def test_what_a_mail_server_answers_decides(answer: str, means: type[Exception]) -> None:
    mailbox = Mailbox()
    mailbox.answers = [answer]
    async with mailing(mailbox) as channel:
        with pytest.raises(means, match=answer[:3]):
            await channel.send(notice())
        await channel.send(notice())
    assert len(mailbox.mails) == 1


async def test_a_connection_that_the_server_closed_meanwhile_is_made_anew() -> None:
    mailbox = Mailbox()
    async with mailing(mailbox) as channel:
        await channel.send(notice())
        channel._idle[0].transport.close()  # type: ignore[union-attr]
        await asyncio.sleep(0.05)
        await channel.send(notice())
    assert len(mailbox.mails) == 2


async def test_a_mail_server_that_is_not_there_is_away() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        channel = MailChannel(settings(probe.getsockname()[1]))
        with pytest.raises(Away):
            await channel.send(notice())


@pytest.mark.parametrize("user", ["a@b.example, all@shop.example", "x\r\nBcc: all@shop.example", "...", "ü", ""])
def test_no_customers_id_becomes_another_address_or_header(user: str) -> None:
    mail = mail_of(notice(user=user), settings(25))
    (to,) = mail["To"].addresses
    assert to.domain == "shop.example"
    assert to.username.startswith("user-")
    assert mail["Bcc"] is None
    assert mail.as_bytes().count(b"shop.example") == 3  # to, from, id


def test_a_customer_of_whom_no_address_can_be_made_is_refused() -> None:
    with pytest.raises(Refused, match="too long"):
        mail_of(notice(user="x" * 100), settings(25))


def test_ids_stay_apart_and_fit_into_a_line() -> None:
    names = ["a", "a b", "a=20b", "a.b", "x" * 300, "x" * 301, "é", "\ud800"]
    ids = [message_id(name, "shop@shop.example") for name in names]
    assert len(set(ids)) == len(set(map(key_of, names))) == len(names)
    assert all(len(one) < 300 and one.isascii() and " " not in one for one in ids)


@pytest.mark.parametrize("to", ["all@shop.example", "{user}", "user {user}@shop.example"])
def test_an_address_that_is_none_is_refused_at_the_start(to: str) -> None:
    with pytest.raises(MillraceError, match="--to"):
        settings(25, to)


class Receiver:
    """A webhook's receiver: keeps what comes, and answers what a test wants."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.status, self.headers = 204, dict[str, str]()

    async def take(self, request: web.Request) -> web.Response:
        self.requests.append((dict(request.headers), await request.read()))
        return web.Response(status=self.status, headers=self.headers)


@asynccontextmanager
async def receiving(receiver: Receiver, secret: str | None = None) -> AsyncIterator[WebhookChannel]:
    app = web.Application()
    app.router.add_post("/notices", receiver.take)
    server = TestServer(app)
    await server.start_server()
    channel = WebhookChannel(str(server.make_url("/notices")), secret)
    await channel.open()
    try:
        yield channel
    finally:
        await channel.close()
        await server.close()


async def test_a_webhook_gets_the_notice_with_its_id_as_the_idempotency_key() -> None:
    receiver = Receiver()
    async with receiving(receiver) as channel:
        await channel.send(notice())
    ((headers, body),) = receiver.requests
    assert headers["Idempotency-Key"] == "order-1-placed"
    assert orjson.loads(body) == notice().as_json()
    assert "webhook-signature" not in headers


async def test_a_secret_signs_what_is_posted() -> None:
    receiver = Receiver()
    async with receiving(receiver, "s3cret") as channel:
        await channel.send(notice())
    ((headers, body),) = receiver.requests
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    digest = base64.b64encode(hmac.new(b"s3cret", signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{digest}"


@pytest.mark.parametrize(
    ("status", "means"),
    [
        (400, Refused),
        (301, Refused),
        (401, Away),
        (404, NotNow),
        (429, Away),
        (500, NotNow),
        (503, Away),
        (504, NotNow),
    ],
)
async def test_what_a_receiver_answers_decides(status: int, means: type[Exception]) -> None:
    receiver = Receiver()
    receiver.status, receiver.headers = status, {"Retry-After": "7", "Location": "/elsewhere"}
    async with receiving(receiver) as channel:
        with pytest.raises(means) as error:
            await channel.send(notice())
    if status in (429, 503):
        assert getattr(error.value, "after_s", None) == 7
    assert len(receiver.requests) == 1


async def test_a_receiver_that_is_not_there_is_away() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        channel = WebhookChannel(f"http://127.0.0.1:{probe.getsockname()[1]}/")
        await channel.open()
        with pytest.raises(Away):
            await channel.send(notice())
        await channel.close()


def test_a_url_that_is_none_is_refused() -> None:
    with pytest.raises(MillraceError, match="--webhook"):
        WebhookChannel("shop.example/notices")
