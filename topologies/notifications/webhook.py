"""Notices as POST requests to a url of the shop's, as JSON.

Each has the header `Idempotency-Key`, the notice's id, the same whenever it comes again. With a secret it is signed as
Standard Webhooks describe it (standardwebhooks.com): `webhook-id`, `webhook-timestamp` (of the try, in seconds) and
`webhook-signature`, `v1,` and the base64 of the HMAC-SHA256 of `<id>.<timestamp>.<body>`.
"""

import base64
import hashlib
import hmac
import time
from typing import Final
from urllib.parse import quote, urlsplit

import aiohttp
import orjson

from streams.errors import MillraceError, in_one_line
from topologies.notifications.channels import Away, NotNow, Refused
from topologies.notifications.notices import Notice

TIMEOUT_S: Final = 10.0
MOST_WAIT_S: Final = 300.0
OVERLOADED: Final = frozenset({429, 503})
# 404 and 405 may be about one notice, or the url: those that come of it can be sent again when it is mended.
AGAIN: Final = frozenset({404, 405, 408, 425})
# The receiver does not let us in: no fault of a notice.
LOCKED: Final = frozenset({401, 403, 407})
KEY_CHARS: Final = 255


class WebhookChannel:
    """A channel (`topologies.notifications.channels`) over HTTP."""

    name = "webhook"

    def __init__(self, url: str, secret: str | None = None, *, timeout_s: float = TIMEOUT_S) -> None:
        """Raises MillraceError for what is no url."""
        asked = urlsplit(url)
        if asked.scheme not in ("http", "https") or not asked.hostname:
            raise MillraceError(f"--webhook {url!r} is no url: give one such as https://shop.example/notices")
        self._url, self._secret = url, None if secret is None else secret.encode()
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Connections are made when they are needed, and kept."""
        self._session = aiohttp.ClientSession(timeout=self._timeout)

    async def send(self, notice: Notice) -> None:
        """Post it; returns where the answer is 2xx."""
        assert self._session is not None, "open comes first"
        body = orjson.dumps(notice.as_json())
        headers = {"Content-Type": "application/json", "User-Agent": "millrace", **self._signed(notice.id, body)}
        try:
            # a redirected POST may come out as a GET of something else
            async with self._session.post(self._url, data=body, headers=headers, allow_redirects=False) as answer:
                status, after = answer.status, answer.headers.get("Retry-After", "")
        except aiohttp.ClientConnectorError as error:
            raise Away(in_one_line(error)) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise NotNow(in_one_line(error)) from error
        if status in OVERLOADED:
            raise Away(f"status {status}", min(float(after), MOST_WAIT_S) if after.isdecimal() else None)
        if status in LOCKED:
            raise Away(f"status {status}: it does not let us in")
        if status in AGAIN or status >= 500:
            raise NotNow(f"status {status}")
        if not 200 <= status < 300:
            raise Refused(f"status {status}")

    def _signed(self, name: str, body: bytes) -> dict[str, str]:
        key = key_of(name)
        headers = {"Idempotency-Key": key}
        if self._secret is not None:
            at = str(int(time.time()))
            digest = hmac.digest(self._secret, f"{key}.{at}.".encode() + body, "sha256")
            signature = f"v1,{base64.b64encode(digest).decode()}"
            headers |= {"webhook-id": key, "webhook-timestamp": at, "webhook-signature": signature}
        return headers

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()


def key_of(name: str) -> str:
    """An id as a header can carry it; one that is too long is hashed.

    >>> key_of("order-1-placed"), key_of("a b")
    ('order-1-placed', 'a%20b')
    """
    key = quote(name.encode(errors="surrogatepass"), safe="!#$&'()*+,/:;=?@[]~")
    return key if len(key) <= KEY_CHARS else f"sha256-{hashlib.sha256(key.encode()).hexdigest()}"
