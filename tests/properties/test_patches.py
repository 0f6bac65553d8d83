"""The patches of live views: whatever changes, jsonpatch makes the next answer of the last one with them."""

import json
from typing import Any

import jsonpatch
import msgspec
from hypothesis import given
from hypothesis import strategies as st

from topologies.views.channel import Channel
from topologies.views.patches import patch

NAMES = st.sampled_from(["a", "b", "key", "a/b", "~", "~1", "", "é", "0"])
PLAIN = st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, width=32) | st.text()
KEYS = st.sampled_from(["books", "games", "a/b", "x"])
ROWS = st.lists(
    st.fixed_dictionaries({"startMs": st.integers(0, 5), "key": KEYS}, optional={"v": st.integers(0, 3)}),
    unique_by=lambda row: (row["startMs"], row["key"]),
    max_size=20,
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    PLAIN | ROWS, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(NAMES, inner, max_size=5), max_leaves=12
)
BODIES = st.fixed_dictionaries({"rows": ROWS, "freshness": st.dictionaries(NAMES, PLAIN, max_size=5)}) | VALUES


@given(BODIES, BODIES)
def test_a_patch_makes_the_new_answer_of_the_old_one(old: Any, new: Any) -> None:
    before, after = msgspec.json.encode(old), msgspec.json.encode(new)
    patched = jsonpatch.apply_patch(json.loads(before), json.loads(b"[" + patch(before, after) + b"]"))
    assert exactly(patched) == exactly(json.loads(after))


def exactly(value: Any) -> str:
    """A text in which 1, 1.0 and true are three things, and the order of names does not count."""
    return json.dumps(value, sort_keys=True)


@given(BODIES)
def test_nothing_is_said_of_what_did_not_change(body: Any) -> None:
    raw = msgspec.json.encode(body)
    assert patch(raw, raw) == b""


@given(ROWS, ROWS)
def test_a_patch_is_no_longer_than_replacing_everything(old: Any, new: Any) -> None:
    before, after = msgspec.json.encode(old), msgspec.json.encode(new)
    assert len(patch(before, after)) <= len(b'{"op":"replace","path":"","value":}') + len(after)


@given(st.lists(st.tuples(BODIES, st.booleans()), min_size=1, max_size=12), st.integers(0, 11))
def test_missed_deltas_together_make_the_newest_answer(answers: list[tuple[Any, bool]], away: int) -> None:
    """One client takes each frame, one has gone after some and comes back with its last id at the end."""
    channel = Channel()
    held: list[Any] = []
    there, left = _Copy(), _Copy()
    for number, (body, _) in enumerate(answers):
        channel.publish(msgspec.json.encode(body), number)
        there.take(channel)
        if number <= away:
            left.take(channel)
        held.append(body)
    left.seq = channel.position(f"{channel.epoch}-{left.seq}")
    left.take(channel)
    newest = exactly(json.loads(msgspec.json.encode(held[-1])))
    assert exactly(there.body) == exactly(left.body) == newest


class _Copy:
    """What a client makes of the frames."""

    def __init__(self) -> None:
        self.seq: int | None = None
        self.body: Any = None

    def take(self, channel: Channel) -> None:
        frame = channel.after(self.seq)
        if frame is None:
            return
        lines = dict(line.split(": ", 1) for line in frame.raw.decode().split("\n") if line and line[0] != ":")
        data = json.loads(lines["data"])
        self.body = data if lines["event"] == "snapshot" else jsonpatch.apply_patch(self.body, data)
        self.seq = frame.seq
        assert lines["id"] == f"{channel.epoch}-{frame.seq}"
