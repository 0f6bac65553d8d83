"""Mails over SMTP, on a few connections that are kept. The Message-ID is made of the notice's id.

A mail that was sent again after a crash has the Message-ID that it had, which mail servers and readers know repeats by;
its date is the event's, so it is the same mail, byte for byte.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP as WIRE
from typing import Final, Literal

import aiosmtplib

from streams.errors import MillraceError, in_one_line
from topologies.notifications.channels import Away, NotNow, Refused
from topologies.notifications.notices import Notice

Security = Literal["none", "starttls", "tls"]
PORTS: Final[Mapping[str, int]] = {"none": 25, "starttls": 587, "tls": 465}
TIMEOUT_S: Final = 20.0
KEPT: Final = 4
LOCAL_CHARS: Final = 64  # RFC 5321, 4.5.3.1.1
ID_CHARS: Final = 200
UNAVAILABLE: Final = 421
# One identifier must not be folded: a line has at most 998 characters (RFC 5322, 2.1.1).
POLICY: Final = WIRE.clone(max_line_length=998)


@dataclass(frozen=True)
class MailSettings:
    """Where mails go and as whose. `to` is an address with `{user}` in it. Raises MillraceError for what cannot be."""

    host: str
    port: int
    sender: str
    to: str
    security: Security = "starttls"
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Look at the addresses now, not at the first mail."""
        if "{user}" not in self.to:
            raise MillraceError(f"--to {self.to!r} needs {{user}} in it, such as user-{{user}}@shop.example")
        for name, text in (("--from", self.sender), ("--to", self.to.replace("{user}", "1"))):
            try:
                Address(addr_spec=text)
            except (ValueError, MessageError, IndexError) as error:
                raise MillraceError(f"{name} {text!r} is no mail address: {error}") from error


class MailChannel:
    """A channel (`topologies.notifications.channels`) over SMTP."""

    name = "smtp"

    def __init__(self, settings: MailSettings) -> None:
        """Connects with the first mail."""
        self._settings = settings
        self._idle: list[aiosmtplib.SMTP] = []

    async def open(self) -> None:
        """Nothing to do before the first mail."""

    async def send(self, notice: Notice) -> None:
        """Send a mail; returns once the server has taken it."""
        mail = mail_of(notice, self._settings)
        client, kept = (self._idle.pop(), True) if self._idle else (await self._connected(), False)
        try:
            await self._send(client, mail)
        except aiosmtplib.SMTPServerDisconnected as error:
            client.close()
            if not kept:
                raise NotNow(f"the server hung up: {in_one_line(error)}") from error
            client = await self._connected()  # it had hung up since the last mail, as servers do
            await self._send_fresh(client, mail)
        except BaseException:
            client.close()
            raise
        if len(self._idle) < KEPT:
            self._idle.append(client)
        else:
            client.close()

    async def _send_fresh(self, client: aiosmtplib.SMTP, mail: EmailMessage) -> None:
        try:
            await self._send(client, mail)
        except aiosmtplib.SMTPServerDisconnected as error:
            client.close()
            raise NotNow(f"the server hung up: {in_one_line(error)}") from error
        except BaseException:
            client.close()
            raise

    async def _send(self, client: aiosmtplib.SMTP, mail: EmailMessage) -> None:
        try:
            await client.send_message(mail)
        except aiosmtplib.SMTPRecipientsRefused as error:
            first = error.recipients[0]
            raise _of_code(first.code, first.message) from error
        except aiosmtplib.SMTPSenderRefused as error:
            raise Away(f"it refuses the sender: {in_one_line(error)}") from error
        except aiosmtplib.SMTPResponseException as error:
            raise _of_code(error.code, error.message) from error
        except (aiosmtplib.SMTPServerDisconnected, aiosmtplib.SMTPConnectError):
            raise
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
            raise NotNow(in_one_line(error)) from error

    async def _connected(self) -> aiosmtplib.SMTP:
        given = self._settings
        client = aiosmtplib.SMTP(
            hostname=given.host,
            port=given.port,
            use_tls=given.security == "tls",
            start_tls=given.security == "starttls",
            username=given.username,
            password=given.password,
            timeout=TIMEOUT_S,
        )
        try:
            await client.connect()
        except (aiosmtplib.SMTPException, OSError, TimeoutError, ValueError) as error:
            client.close()
            raise Away(f"{given.host}:{given.port}: {in_one_line(error)}") from error
        return client

    async def close(self) -> None:
        """Hang up."""
        while self._idle:
            self._idle.pop().close()


def mail_of(notice: Notice, settings: MailSettings) -> EmailMessage:
    """The mail, the same each time it is made. Raises `Refused` for a customer that no address can be made of."""
    address = settings.to.replace("{user}", atom(notice.user))
    local, _, _ = address.rpartition("@")
    if len(local) > LOCAL_CHARS:
        raise Refused(f"customer {notice.user[:80]!r} makes an address that is too long")
    mail = EmailMessage(policy=POLICY)
    try:
        mail["To"] = Address(addr_spec=address)
    except (ValueError, MessageError, IndexError) as error:
        raise Refused(f"customer {notice.user[:80]!r} makes no address: {error}") from error
    mail["From"] = settings.sender
    mail["Subject"] = notice.subject
    mail["Date"] = datetime.fromtimestamp(notice.at_ms / 1000, UTC)
    mail["Message-ID"] = message_id(notice.id, settings.sender)
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(notice.text)
    return mail


def message_id(name: str, sender: str) -> str:
    """A notice's Message-ID; ids that are too long are hashed.

    >>> message_id("order-17-placed", "shop@shop.example")
    '<order-17-placed@shop.example>'
    """
    left = atom(name)
    if len(left) > ID_CHARS:
        left = f"sha256-{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()}"
    return f"<{left}@{sender.rpartition('@')[2]}>"


def atom(text: str) -> str:
    """Text as one atom of an address, which nobody takes for more than it is.

    >>> atom("a@b, c")
    'a=40b=2C=20c'
    """
    return re.sub(
        rb"[^A-Za-z0-9_-]", lambda found: b"=%02X" % found[0][0], text.encode(errors="surrogatepass")
    ).decode()


def _of_code(code: int, words: str) -> Away | NotNow | Refused:
    said = f"{code} {' '.join(words.split())}"
    if code == UNAVAILABLE:
        return Away(said)
    return NotNow(said) if 400 <= code < 500 else Refused(said)
