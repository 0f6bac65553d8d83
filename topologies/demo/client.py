"""The demo's own HTTP client of a view server: standard library, one request at a time."""

import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import orjson

TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Client:
    """Asks one view server. `get` raises OSError while it does not answer."""

    url: str
    token: str | None = field(default=None, repr=False)

    def get(self, path: str, **parameters: Any) -> dict[str, Any]:
        """The JSON answer of a path, error answers included."""
        query = f"?{urlencode(parameters)}" if parameters else ""
        try:
            with urllib.request.urlopen(self._request(f"{self.url}{path}{query}"), timeout=TIMEOUT_S) as response:
                raw = response.read()
        except urllib.error.HTTPError as error:
            raw = error.read()
        found: dict[str, Any] = orjson.loads(raw)
        return found

    def _request(self, url: str) -> urllib.request.Request:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return urllib.request.Request(url, headers=headers)

    def rows(self, table: str, slice_start: int, slice_ms: int) -> list[dict[str, Any]]:
        """All rows of one slice of a table."""
        window = f"{slice_ms // 1000}s"
        answer = self.get(
            f"/api/tables/{table}/rows", window=window, **{"from": slice_start, "to": slice_start + slice_ms}
        )
        rows: list[dict[str, Any]] = answer["rows"]
        return rows
