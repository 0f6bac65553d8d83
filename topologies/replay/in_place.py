"""A replay in place from its beginning to its end, or from where it was interrupted."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from streams.admin.connection import Admin
from streams.admin.groups import members_of
from streams.errors import MillraceError
from streams.log import TP
from tables.points import reached
from topologies.loading import load_topology
from topologies.names import workers_here
from topologies.replay.journal import Journal, end_journal, read_journal, write_journal
from topologies.replay.locks import alone, resetting
from topologies.replay.members import empty
from topologies.replay.origin import Origin
from topologies.replay.planning import Plan, make_plan
from topologies.replay.rebuilding import Rebuilt, rebuild
from topologies.replay.resetting import is_begun, reset
from topologies.settings import Settings
from topologies.topology import Topology
from topologies.versions.loading import refuse_dropped


@dataclass
class InPlace:
    """The replay of the topology `named` on a command line. `told` hears, in a line each, what takes a while.

    `ended` are the workers that were ended for it, by group: those of groups that read what is dropped are among them.
    """

    settings: Settings
    named: str
    told: Callable[[str], None]
    topology: Topology = field(init=False)
    admin: Admin = field(init=False)
    ended: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Load the topology; nothing is asked of the cluster."""
        self.topology = load_topology(self.named, self.settings)
        self.admin = Admin(self.settings.cluster)

    @property
    def directory(self) -> Path:
        """The group's state directory."""
        return Path(self.settings.state_dir) / self.topology.name

    def alone(self) -> AbstractContextManager[None]:
        """Hold off other replays of the group on this state directory. Raises MillraceError."""
        return alone(self.directory, self.topology.name)

    def pending(self, origin: Origin, *, anew: bool) -> Journal | None:
        """The replay that was interrupted and can go on; one that somebody has undone since does not count.

        Raises MillraceError where it began elsewhere than at `origin`.
        """
        found = None if anew else read_journal(self.directory)
        if found is None:
            return None
        if found.phase == "rebuilding" and not is_begun(self.admin, self.topology, found.plan.renewed):
            self.told("the replay that was interrupted here is not the state's last one: it does not count any more")
            return None
        if found.plan.origin != origin.text:
            raise MillraceError(
                f"a replay of {self.topology.name} from {found.plan.origin} was interrupted: give --from "
                f"{found.plan.origin} to go on with it, or --anew to begin another one"
            )
        return found

    def plan(self, origin: Origin, pending: Journal | None = None) -> Plan:
        """What is to be done, also where it was begun before. Raises MillraceError."""
        if pending is not None and pending.phase == "rebuilding":
            return pending.plan
        refuse_dropped(self.topology, self.named, self.settings)
        made = make_plan(self.admin, self.topology, origin, self.settings.state_dir)
        if pending is None:
            return made
        # What is gone already cannot be looked at any more; and what the first try left must not pass for the second's.
        first = pending.plan
        dropped = list(dict.fromkeys([*first.dropped, *made.dropped]))
        renewed = max(first.renewed + 1, made.renewed)
        return msgspec.structs.replace(
            made, dropped=dropped, renewed=renewed, losses=first.losses, readers={**first.readers, **made.readers}
        )

    def users(self) -> list[str]:
        """Who is in the group now."""
        return [member.name for member in members_of(self.admin, self.topology.name)]

    def gone(self) -> list[tuple[str, str]]:
        """Which of the workers that were ended nobody has started again: group and name."""
        here = {group: workers_here(self.settings.state_dir, group) for group in self.ended}
        return [(group, name) for group, names in self.ended.items() for name in names if name not in here[group]]

    def empty(self, plan: Plan, *, stop: bool) -> None:
        """Return once nobody works with what is to be dropped. Raises MillraceError naming who does."""
        groups = dict.fromkeys([*(name for names in plan.readers.values() for name in names), plan.group])
        for group in groups:
            self.ended.setdefault(group, []).extend(
                empty(self.admin, group, self.settings.state_dir, self.settings.session_s, stop=stop, told=self.told)
            )

    def reset(self, plan: Plan, *, stop: bool) -> None:
        """Drop the state and begin the tables anew. Raises MillraceError; the same command goes on then."""
        with resetting(self.directory, self.topology.name):
            self.empty(plan, stop=stop)
            write_journal(self.directory, Journal(plan, "resetting"))
            reached("replay-noted")
            reset(self.admin, self.topology, plan, self.settings.state_dir)
        write_journal(self.directory, Journal(plan, "rebuilding"))

    def rebuild(self, plan: Plan, workers: int, report: Callable[[Mapping[TP, int]], None]) -> Rebuilt:
        """Have the tables built up to the plan's ends. Raises MillraceError; the same command goes on then."""
        rebuilt = rebuild(self.admin, self.topology, plan, self.settings, self.named, workers, report)
        end_journal(self.directory)
        return rebuilt
