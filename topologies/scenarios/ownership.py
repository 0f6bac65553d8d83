"""Who owns which partition, as the broker has it."""

import time
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from typing import Final

from streams.admin.connection import Admin
from streams.admin.groups import members_and_state
from streams.errors import MillraceError

POLL_S: Final = 0.1
SETTLED_S: Final = 60.0


@dataclass(frozen=True)
class Ownership:
    """Each member of the group by its name, with its partitions in order; of an idle one they are none.

    While they are shared out anew (``stable`` is false), the broker still tells of the shares of before.
    """

    owners: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    stable: bool = True

    def complete(self, partitions: int) -> bool:
        """Whether every partition has one owner, and all agree on that."""
        return self.stable and sorted(one for owned in self.owners.values() for one in owned) == list(range(partitions))

    @property
    def idle(self) -> tuple[str, ...]:
        """Members without a partition, by name."""
        return tuple(sorted(name for name, owned in self.owners.items() if not owned))

    @property
    def working(self) -> dict[str, tuple[int, ...]]:
        """Members with partitions, by name."""
        return {name: owned for name, owned in sorted(self.owners.items()) if owned}

    def owner(self, partition: int) -> str | None:
        """Whose a partition is; None while it is nobody's."""
        return next((name for name, owned in self.owners.items() if partition in owned), None)


def ask(admin: Admin, group: str) -> Ownership:
    """Ask the broker. Raises MillraceError."""
    members, state = members_and_state(admin, group)
    owners = {one.client: tuple(sorted(tp.partition for tp in one.partitions)) for one in members}
    return Ownership(owners, stable=state == "STABLE")


def settled(
    admin: Admin,
    group: str,
    members: Set[str],
    partitions: int,
    *,
    looked: Callable[[Ownership], object],
    limit_s: float = SETTLED_S,
) -> Ownership:
    """What the broker says once exactly these are members and every partition has an owner.

    `looked` hears of every look, and may raise. Raises MillraceError when it does not come to that.
    """
    deadline = time.monotonic() + limit_s
    while True:
        found = ask(admin, group)
        looked(found)
        if found.owners.keys() == members and found.complete(partitions):
            return found
        if time.monotonic() > deadline:
            raise MillraceError(
                f"group {group} has not come to rest after {limit_s:g} s: its members are "
                f"{', '.join(sorted(found.owners)) or 'nobody'}; see `millrace doctor`"
            )
        time.sleep(POLL_S)
