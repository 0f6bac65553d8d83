"""Query parameters, read strictly: what cannot be understood is a `BadParameter` that says what would be right."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from multidict import MultiMapping

from tables.windows import Hopping, Tumbling, parse_duration
from topologies.views.problems import BadParameter

LATEST_MS = 2**53
TEXT_CHARS = 1_000


@dataclass(frozen=True)
class Parameters:
    """The parameters of one request. Each method reads one; a missing one is the default."""

    values: Mapping[str, str]

    @classmethod
    def read(cls, query: MultiMapping[str], known: Iterable[str]) -> "Parameters":
        """Take a query string's parameters; raise for names that are not known here, and for repeated ones."""
        known = sorted(known)
        for name in query:
            if name not in known:
                raise _unknown(name, known)
            if len(query.getall(name)) > 1:
                raise BadParameter(name, f"{name} is given more than once")
        return cls(dict(query))

    @classmethod
    def of(cls, values: Mapping[str, str], known: Iterable[str]) -> "Parameters":
        """Take what a custom view is called with; raise for names that are not known here."""
        known = sorted(known)
        for name in values:
            if name not in known:
                raise _unknown(name, known)
        return cls(values)

    def text(self, name: str) -> str | None:
        """A text, not empty."""
        value = self.values.get(name)
        if value is not None and not 0 < len(value) <= TEXT_CHARS:
            raise BadParameter(name, f"{name} must have 1 to {TEXT_CHARS} characters")
        return value

    def choice(self, name: str, options: Iterable[str], default: str | None = None) -> str:
        """One of the options."""
        options = list(options)
        value = self.values.get(name, default)
        if value is None or value not in options:
            found = "is missing" if value is None else f"{value!r} is unknown"
            raise BadParameter(name, f"{name} {found}; give one of {', '.join(options)}")
        return value

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number of `[low, high]`."""
        text = self.values.get(name)
        if text is None:
            return default
        number = int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None
        if number is None or not low <= number <= high:
            raise BadParameter(name, f"{name} must be a whole number from {low} to {high}, not {text!r}")
        return number

    def time(self, name: str) -> int | None:
        """A time in ms since the epoch, given so or as ISO-8601 (UTC where no offset is given)."""
        text = self.values.get(name)
        if text is None:
            return None
        at = int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else _iso_ms(name, text)
        if not 0 <= at < LATEST_MS:
            raise BadParameter(name, f"{name} must be a time from 1970 on, not {text!r}")
        return at

    def windows(self, slice_ms: int, default: str | None = None) -> Hopping:
        """The windows of `window` and, if given, `hop`: multiples of the slice, which is the default."""
        size = self._duration("window", slice_ms, default) or slice_ms
        hop = self._duration("hop", slice_ms, None)
        if hop is None:
            return Tumbling(size, slice_ms)
        if hop > size:
            raise BadParameter("hop", "hop must not be longer than the window, or times would fall between")
        return Hopping(size, hop, slice_ms)

    def _duration(self, name: str, slice_ms: int, default: str | None) -> int | None:
        text = self.values.get(name)
        if text is None and default is not None:
            fallback = parse_duration(default)
            return fallback if fallback % slice_ms == 0 else slice_ms
        if text is None:
            return None
        try:
            length = parse_duration(text)
        except ValueError as error:
            raise BadParameter(name, f"{name}: {error}") from error
        if length % slice_ms or length > LATEST_MS:
            detail = f"{name} must be a multiple of the table's slice of {slice_ms / 1000:g} s, not {text!r}"
            raise BadParameter(name, detail)
        return length


def _unknown(name: str, known: list[str]) -> BadParameter:
    choices = f"known are {', '.join(known)}" if known else "there are none here"
    return BadParameter(name, f"there is no parameter {name!r}; {choices}")


def _iso_ms(name: str, text: str) -> int:
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadParameter(
            name,
            f"{name} must be epoch milliseconds or ISO-8601 such as 2026-01-31T12:00:00Z, not {text!r} "
            "(a + in a URL is written %2B)",
        ) from error
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return round(at.timestamp() * 1000)
