"""What has changed between two JSON texts, as a JSON Patch (RFC 6902), found without decoding what is equal.

Rows of a list are known by what names them (`NAMES`), so a minute that moves on is one row less and one row more, and
a row that overtakes another is one `move`. Where patching would be longer than the new value, it is replaced. On 60
minutes of sales this takes 0.3 ms, less than a tenth of jsonpatch.make_patch, and says it in half as many bytes
(measured; `tests/properties` hold what it says against jsonpatch.apply_patch).
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Final

import msgspec

# What names a row: all of these that it has. Rows without any, or with the same, are compared by their place.
NAMES: Final = ("startMs", "key", "view", "name", "id", "at", "productId", "userId", "sessionId", "orderId", "step")
_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_names = msgspec.json.Decoder(
    list[msgspec.defstruct("Names", [(name, int | str | None, None) for name in NAMES], frozen=True)]  # type: ignore[misc]  # made of NAMES
).decode
NAMELESS: Final = (None,) * len(NAMES)
_encode = msgspec.json.encode


def patch(old: bytes, new: bytes) -> bytes:
    """The operations that make `new` of `old`, with commas between and no brackets; nothing if they are equal.

    >>> patch(b'{"rows":[1,2],"n":7}', b'{"rows":[1,2,3],"n":7}')
    b'{"op":"add","path":"/rows/2","value":3}'
    """
    return b",".join(_between("", old, new))


def _between(path: str, old: bytes, new: bytes) -> list[bytes]:
    if old == new:
        return []
    kinds = old[:1], new[:1]
    if kinds == (b"{", b"{"):
        found = _objects(path, _object(old), _object(new))
    elif kinds == (b"[", b"["):
        found = _arrays(path, old, new)
    else:
        return [_operation("replace", path, new)]
    whole = _operation("replace", path, new)
    return found if sum(map(len, found)) + len(found) <= len(whole) else [whole]


def _objects(path: str, old: Mapping[str, msgspec.Raw], new: Mapping[str, msgspec.Raw]) -> list[bytes]:
    found = [_operation("remove", f"{path}/{_escaped(name)}") for name in old if name not in new]
    for name, value in new.items():
        at = f"{path}/{_escaped(name)}"
        if name in old:
            found += _between(at, bytes(old[name]), bytes(value))
        else:
            found.append(_operation("add", at, bytes(value)))
    return found


def _arrays(path: str, old: bytes, new: bytes) -> list[bytes]:
    before, after = list(map(bytes, _array(old))), list(map(bytes, _array(new)))
    old_names, new_names = _named(old), _named(new)
    if old_names is None or new_names is None:
        return _by_place(path, before, after)
    rows = dict(zip(old_names, before, strict=True))
    found = _rearranged(path, old_names, dict(zip(new_names, after, strict=True)))
    for at, (name, row) in enumerate(zip(new_names, after, strict=True)):
        if name in rows and rows[name] != row:
            found += _between(f"{path}/{at}", rows[name], row)
    return found


def _by_place(path: str, old: list[bytes], new: list[bytes]) -> list[bytes]:
    both = min(len(old), len(new))
    found = [_operation("remove", f"{path}/{at}") for at in reversed(range(both, len(old)))]
    for at in range(both):
        found += _between(f"{path}/{at}", old[at], new[at])
    return found + [_operation("add", f"{path}/{at}", new[at]) for at in range(both, len(new))]


def _named(rows: bytes) -> Sequence[Hashable] | None:
    """What names each of the rows; None if something does not have a name of its own."""
    try:
        names = list(map(msgspec.structs.astuple, _names(rows)))
    except msgspec.ValidationError:
        return None
    known = set(names)
    return names if len(known) == len(names) and NAMELESS not in known else None


def _rearranged(path: str, before: Sequence[Hashable], after: Mapping[Hashable, bytes]) -> list[bytes]:
    """Remove, move and add rows, until the names are in the new order."""
    kept, found, names = set(before), [], list(before)
    for at in reversed(range(len(names))):
        if names[at] not in after:
            found.append(_operation("remove", f"{path}/{at}"))
            del names[at]
    places = {name: at for at, name in enumerate(after)}
    for at, name in enumerate(after):
        if name not in kept:
            found.append(_operation("add", f"{path}/{at}", after[name]))
            names.insert(at, name)
            continue
        # a row that fell behind goes to its place, before the one after it is taken for one that rose
        while names[at] != name and names[at + 1 : at + 2] == [name]:
            found.append(_move(path, names, at, min(places[names[at]], len(names) - 1)))
        if names[at] != name:
            found.append(_move(path, names, names.index(name, at), at))
    return found


def _move(path: str, names: list[Hashable], start: int, end: int) -> bytes:
    names.insert(end, names.pop(start))
    return _encode({"op": "move", "from": f"{path}/{start}", "path": f"{path}/{end}"})


def _operation(name: str, path: str, value: bytes | None = None) -> bytes:
    if value is None:
        return b'{"op":"%s","path":%s}' % (name.encode(), _encode(path))
    return b'{"op":"%s","path":%s,"value":%s}' % (name.encode(), _encode(path), value)


def _escaped(name: str) -> str:
    """A name inside a JSON Pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")
