"""Query and path parameters: declared once, read strictly, and written into the API's document from the declaration.

What cannot be understood is a `BadParameter` that says what would be right. A declaration is a value; `of` reads it
from the parameters of a request, and a missing one is its default:

    >>> N = Integer("n", low=1, high=50, default=10, about="rows")
    >>> N.of({"n": "3"}), N.of({})
    (3, 10)
    >>> N.schema()
    {'type': 'integer', 'minimum': 1, 'maximum': 50, 'default': 10}
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Generic, Literal, TypeVar

from multidict import MultiMapping

from tables.windows import Hopping, Tumbling, parse_duration
from topologies.views.problems import SHOWN_CHARS, BadParameter

LATEST_MS: Final = 2**53
# Windows that begin before end with a year of four digits, which is all that RFC 3339 can write.
YEAR_9999_MS: Final = 253_370_764_800_000
TEXT_CHARS: Final = 1_000
DURATION_PATTERN: Final = "^[1-9][0-9]{0,8}[smhd]$"
_TIME_PATTERN: Final = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?(Z|[+-][0-9:]{5})?)?$"
_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,17}(\.[0-9]{0,17})?([eE][+-]?[0-9]{1,3})?", re.ASCII)
T = TypeVar("T")
Schema = dict[str, Any]


@dataclass(frozen=True)
class Parameter(ABC, Generic[T]):
    """A parameter's name, what it is for, and where it is given."""

    name: str
    about: str = field(default="", kw_only=True)
    place: Literal["query", "path", "header"] = field(default="query", kw_only=True)
    example: str | int | None = field(default=None, kw_only=True)
    required: bool = field(default=False, kw_only=True)

    @abstractmethod
    def of(self, values: Mapping[str, str]) -> T:
        """Its value among a request's parameters. Raises BadParameter."""

    @abstractmethod
    def schema(self) -> Schema:
        """What it may be, as JSON Schema."""

    def bad(self, detail: str) -> BadParameter:
        """The answer to a value that is not right, with what would be."""
        return BadParameter(self.name, f"{self.name} {detail}")


@dataclass(frozen=True)
class Text(Parameter[str | None]):
    """A text, not empty; None where it is missing."""

    max_chars: int = TEXT_CHARS

    def of(self, values: Mapping[str, str]) -> str | None:
        """The text."""
        value = values.get(self.name)
        if value is not None and not 0 < len(value) <= self.max_chars:
            raise self.bad(f"must have 1 to {self.max_chars} characters")
        return value

    def schema(self) -> Schema:
        """How long it may be."""
        return {"type": "string", "minLength": 1, "maxLength": self.max_chars}


@dataclass(frozen=True)
class Segment(Parameter[str]):
    """A part of the path."""

    max_chars: int | None = TEXT_CHARS
    place: Literal["query", "path", "header"] = field(default="path", kw_only=True)
    required: bool = field(default=True, kw_only=True)

    def of(self, values: Mapping[str, str]) -> str:
        """The text."""
        value = values[self.name]
        if self.max_chars is not None and len(value) > self.max_chars:
            raise self.bad(f"must have 1 to {self.max_chars} characters")
        return value

    def schema(self) -> Schema:
        """How long it may be."""
        most = {} if self.max_chars is None else {"maxLength": self.max_chars}
        return {"type": "string", "minLength": 1} | most


@dataclass(frozen=True)
class Choice(Parameter[str]):
    """One of some words; without a default it must be given."""

    options: tuple[str, ...]
    default: str | None = None

    def of(self, values: Mapping[str, str], among: Iterable[str] | None = None) -> str:
        """The word; `among` are the options that there are this time, where it is not all."""
        options = list(self.options if among is None else among)
        value = values.get(self.name, self.default)
        if value is None or value not in options:
            found = "is missing" if value is None else f"{value!r} is unknown"
            raise self.bad(f"{found}; give one of {', '.join(options)}")
        return value

    def schema(self) -> Schema:
        """The words."""
        return {"type": "string", "enum": list(self.options)} | _default(self.default)


@dataclass(frozen=True)
class Integer(Parameter[int]):
    """A whole number of `[low, high]`."""

    low: int
    high: int
    default: int

    def of(self, values: Mapping[str, str]) -> int:
        """The number."""
        text = values.get(self.name)
        if text is None:
            return self.default
        number = _whole(text)
        if number is None or not self.low <= number <= self.high:
            raise self.bad(f"must be a whole number from {self.low} to {self.high}, not {text!r}")
        return number

    def schema(self) -> Schema:
        """The bounds."""
        return {"type": "integer", "minimum": self.low, "maximum": self.high, "default": self.default}


@dataclass(frozen=True)
class Number(Parameter[float]):
    """A number of `[low, high]`, such as `2.5`."""

    low: float
    high: float
    default: float

    def of(self, values: Mapping[str, str]) -> float:
        """The number."""
        text = values.get(self.name)
        if text is None:
            return self.default
        if not _NUMBER.fullmatch(text) or not self.low <= float(text) <= self.high:
            raise self.bad(f"must be a number from {self.low:g} to {self.high:g}, not {text[:SHOWN_CHARS]!r}")
        return float(text)

    def schema(self) -> Schema:
        """The bounds."""
        return {"type": "number", "minimum": self.low, "maximum": self.high, "default": self.default}


@dataclass(frozen=True)
class Time(Parameter[int | None]):
    """A time in ms since the epoch, given so or as ISO-8601 (UTC where no offset is given); None where missing."""

    def of(self, values: Mapping[str, str]) -> int | None:
        """The time in ms."""
        text = values.get(self.name)
        if text is None:
            return None
        at = _whole(text)
        if at is None:
            at = self._iso_ms(text)
        if not 0 <= at < YEAR_9999_MS:
            raise self.bad(f"must be a time from 1970 on, before 9999, not {text[:SHOWN_CHARS]!r}")
        return at

    def _iso_ms(self, text: str) -> int:
        try:
            at = datetime.fromisoformat(text)
        except ValueError as error:
            raise self.bad(
                f"must be epoch milliseconds or ISO-8601 such as 2026-01-31T12:00:00Z, not {text!r} "
                "(a + in a URL is written %2B)"
            ) from error
        at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
        return round(at.timestamp() * 1000)

    def schema(self) -> Schema:
        """A number of ms, or a text."""
        return {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": YEAR_9999_MS - 1},
                {"type": "string", "pattern": _TIME_PATTERN, "examples": ["2026-01-31T12:00:00Z"]},
            ]
        }


@dataclass(frozen=True)
class Duration(Parameter[int | None]):
    """A length of time such as `5m`, in ms; what it must be a multiple of is the table's to say."""

    default: str | None = None

    def of(self, values: Mapping[str, str]) -> int | None:
        """The length in ms, or the default's; None without."""
        text = values.get(self.name, self.default)
        if text is None:
            return None
        try:
            return parse_duration(text)
        except ValueError as error:
            raise BadParameter(self.name, f"{self.name}: {error}") from error

    def multiple(self, values: Mapping[str, str], slice_ms: int, longest_ms: int = LATEST_MS) -> int | None:
        """The length, which must be a multiple of the slice; a default that is none becomes the slice."""
        length = self.of(values)
        if length is None or (length % slice_ms == 0 and length <= longest_ms):
            return length
        if self.name not in values:
            return slice_ms
        given = values[self.name]
        if length % slice_ms:
            raise self.bad(f"must be a multiple of the table's slice of {slice_ms / 1000:g} s, not {given!r}")
        raise self.bad(f"must be at most {longest_ms / 1000:g} s, which is how long the table is kept, not {given!r}")

    def schema(self) -> Schema:
        """Its form."""
        return {"type": "string", "pattern": DURATION_PATTERN, "examples": ["15m"]} | _default(self.default)


@dataclass(frozen=True)
class Repeated(Parameter[list[str]]):
    """A text that may be given several times, and must be once."""

    most: int
    required: bool = field(default=True, kw_only=True)

    def of(self, values: Mapping[str, str]) -> list[str]:
        """All of them; give it the query itself, which still has them all."""
        given = values.getall(self.name, []) if isinstance(values, MultiMapping) else []
        if not 0 < len(given) <= self.most:
            raise self.bad(f"must be given 1 to {self.most} times")
        return given

    def schema(self) -> Schema:
        """How many there may be."""
        texts = {"type": "string", "minLength": 1}
        return {"type": "array", "items": texts, "minItems": 1, "maxItems": self.most}


@dataclass(frozen=True)
class Formed(Parameter[str | None]):
    """A text of a certain form, such as a place in a list that an earlier answer named; None where it is missing."""

    pattern: str
    form: str
    max_chars: int = TEXT_CHARS

    def of(self, values: Mapping[str, str]) -> str | None:
        """The text as it was given."""
        text = values.get(self.name)
        if text is not None and (len(text) > self.max_chars or not re.fullmatch(self.pattern, text, re.ASCII)):
            raise self.bad(f"must be {self.form}")
        return text

    def schema(self) -> Schema:
        """The form."""
        return {"type": "string", "pattern": self.pattern, "maxLength": self.max_chars}


def windows_of(
    values: Mapping[str, str],
    slice_ms: int,
    window: Duration,
    hop: Duration | None = None,
    longest_ms: int = LATEST_MS,
) -> Hopping:
    """The windows that two parameters ask for: multiples of the slice, which is the default, and not too long."""
    size = window.multiple(values, slice_ms, longest_ms) or slice_ms
    step = None if hop is None else hop.multiple(values, slice_ms)
    if hop is None or step is None:
        return Tumbling(size, slice_ms)
    if step > size:
        raise hop.bad("must not be longer than the window, or times would fall between")
    return Hopping(size, step, slice_ms)


def checked(query: MultiMapping[str], known: Iterable[str], repeated: Iterable[str] = ()) -> dict[str, str]:
    """A query's parameters, each once. Raises BadParameter for one that is not known here, or given again."""
    known = sorted(known)
    for name in query:
        if name not in known:
            raise unknown(name, known)
    once(query, query.keys() - set(repeated))
    return dict(query)


def once(query: MultiMapping[str], names: Collection[str]) -> dict[str, str]:
    """Those of a query's parameters. Raises BadParameter for one that is given more than once."""
    for name in names:
        if len(query.getall(name, ())) > 1:
            raise BadParameter(name, f"{name} is given more than once")
    return {name: query[name] for name in names if name in query}


def unknown(name: str, known: Iterable[str]) -> BadParameter:
    """The answer to a parameter that there is not."""
    there = ", ".join(sorted(known))
    choices = f"known are {there}" if there else "there are none here"
    return BadParameter(name, f"there is no parameter {name!r}; {choices}")


@dataclass(frozen=True)
class Parameters:
    """The parameters of one request, for views that do not declare theirs. A missing one is the default."""

    values: Mapping[str, str]

    @classmethod
    def read(cls, query: MultiMapping[str], known: Iterable[str]) -> "Parameters":
        """Take a query string's parameters; raise for names that are not known here, and for repeated ones."""
        return cls(checked(query, known))

    @classmethod
    def of(cls, values: Mapping[str, str], known: Iterable[str]) -> "Parameters":
        """Take what a custom view is called with; raise for names that are not known here."""
        known = sorted(known)
        for name in values:
            if name not in known:
                raise unknown(name, known)
        return cls(values)

    def text(self, name: str) -> str | None:
        """A text, not empty."""
        return Text(name).of(self.values)

    def choice(self, name: str, options: Iterable[str], default: str | None = None) -> str:
        """One of the options."""
        return Choice(name, tuple(options), default).of(self.values)

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number of `[low, high]`."""
        return Integer(name, low, high, default).of(self.values)

    def time(self, name: str) -> int | None:
        """A time in ms since the epoch, given so or as ISO-8601 (UTC where no offset is given)."""
        return Time(name).of(self.values)

    def windows(self, slice_ms: int, default: str | None = None) -> Hopping:
        """The windows of `window` and, if given, `hop`: multiples of the slice, which is the default."""
        return windows_of(self.values, slice_ms, Duration("window", default), Duration("hop"))


def _whole(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None


def _default(value: str | None) -> Schema:
    return {} if value is None else {"default": value}
