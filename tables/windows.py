"""Windows of event time, made of slices: integers of ms since the epoch, `[start, end)`, epoch-aligned.

Only slices are stored. A longer window is the merge of its slices, so tumbling, hopping and sliding windows
of any size cost nothing per event and can be asked for later.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_UNITS_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"([1-9][0-9]{0,8})([smhd])")


def parse_duration(text: str) -> int:
    """The ms of a text such as `30s`, `1m`, `15m`, `1h` or `1d`. Raises ValueError for anything else.

    >>> parse_duration("5m"), parse_duration("1d")
    (300000, 86400000)
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no duration: give a whole number and s, m, h or d, such as 5m")
    return int(match[1]) * _UNITS_MS[match[2]]


def slice_start(at_ms: int, slice_ms: int) -> int:
    """The start of the slice that holds a time.

    >>> slice_start(59_999, 60_000), slice_start(60_000, 60_000), slice_start(-1, 60_000)
    (0, 60000, -60000)
    """
    return at_ms - at_ms % slice_ms


@dataclass(frozen=True, order=True)
class Window:
    """The times `[start_ms, end_ms)`.

    >>> 59_999 in Window(0, 60_000), 60_000 in Window(0, 60_000)
    (True, False)
    """

    start_ms: int
    end_ms: int

    def __post_init__(self) -> None:
        """Raise ValueError for an empty window."""
        if self.end_ms <= self.start_ms:
            raise ValueError(f"a window ends after its start: {self.start_ms} to {self.end_ms} ms is empty")

    def __contains__(self, at_ms: int) -> bool:
        return self.start_ms <= at_ms < self.end_ms


def slices_of(window: Window, slice_ms: int) -> range:
    """The starts of the slices that make up a window. Raises ValueError where it cuts a slice.

    >>> list(slices_of(Window(120_000, 300_000), 60_000))
    [120000, 180000, 240000]
    """
    if window.start_ms % slice_ms or window.end_ms % slice_ms:
        raise ValueError(f"{window} is not made of whole slices of {slice_ms} ms: align it to them")
    return range(window.start_ms, window.end_ms, slice_ms)


def _whole(what: str, length_ms: int, slice_ms: int) -> None:
    if slice_ms <= 0:
        raise ValueError(f"slices must be longer than 0 ms: got {slice_ms}")
    if length_ms <= 0 or length_ms % slice_ms:
        raise ValueError(f"{what} of {length_ms} ms: give a multiple of the slice of {slice_ms} ms")


@dataclass(frozen=True)
class Hopping:
    """Windows of `size_ms` that start each `hop_ms`: a time is in size/hop of them, rounded up or down.

    Both are multiples of the slice; a hop longer than the size would leave times out and raises ValueError.
    """

    size_ms: int
    hop_ms: int
    slice_ms: int = 60_000

    def __post_init__(self) -> None:
        """Raise ValueError unless both are multiples of the slice, the hop at most the size."""
        _whole("a window size", self.size_ms, self.slice_ms)
        _whole("a hop", self.hop_ms, self.slice_ms)
        if self.hop_ms > self.size_ms:
            raise ValueError(f"a hop of {self.hop_ms} ms would leave gaps between windows of {self.size_ms} ms")

    def windows_at(self, at_ms: int) -> Iterator[Window]:
        """The windows that hold a time, earliest first.

        >>> [w.start_ms for w in Hopping(300_000, 120_000).windows_at(310_000)]
        [120000, 240000]
        """
        first = slice_start(at_ms - self.size_ms, self.hop_ms) + self.hop_ms
        return (Window(start, start + self.size_ms) for start in range(first, at_ms + 1, self.hop_ms))

    def windows(self, from_ms: int, to_ms: int) -> Iterator[Window]:
        """The windows that hold any time of `[from_ms, to_ms)`, earliest first.

        >>> [w.start_ms for w in Hopping(300_000, 120_000).windows(310_000, 370_000)]
        [120000, 240000, 360000]
        """
        if to_ms <= from_ms:
            return iter(())
        first = slice_start(from_ms - self.size_ms, self.hop_ms) + self.hop_ms
        return (Window(start, start + self.size_ms) for start in range(first, to_ms, self.hop_ms))

    def slices(self, window: Window) -> range:
        """The starts of the slices that one of these windows merges."""
        return slices_of(window, self.slice_ms)


class Tumbling(Hopping):
    """Windows of `size_ms` side by side: each time is in exactly one.

    >>> [(w.start_ms, w.end_ms) for w in Tumbling(300_000).windows(299_999, 300_001)]
    [(0, 300000), (300000, 600000)]
    """

    def __init__(self, size_ms: int, slice_ms: int = 60_000) -> None:
        """Raise ValueError unless the size is a multiple of the slice."""
        super().__init__(size_ms, size_ms, slice_ms)

    def window_at(self, at_ms: int) -> Window:
        """The window that holds a time.

        >>> Tumbling(300_000).window_at(310_000)
        Window(start_ms=300000, end_ms=600000)
        """
        return next(self.windows_at(at_ms))


class Sliding(Hopping):
    """Windows of `size_ms` that move on slice by slice, and the latest of them at any time.

    >>> [w.end_ms for w in Sliding(180_000).windows_at(60_000)]
    [120000, 180000, 240000]
    """

    def __init__(self, size_ms: int, slice_ms: int = 60_000) -> None:
        """Raise ValueError unless the size is a multiple of the slice."""
        super().__init__(size_ms, slice_ms, slice_ms)

    def window_to(self, at_ms: int) -> Window:
        """The window that ends with the slice of a time: "the last 15 minutes", with the slice still running.

        >>> Sliding(900_000).window_to(1_830_000)
        Window(start_ms=960000, end_ms=1860000)
        """
        end = slice_start(at_ms, self.slice_ms) + self.slice_ms
        return Window(end - self.size_ms, end)
