"""A whole examination, part after part: each says what it finds, and one that fails leaves the others to go on."""

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from streams.admin.connection import Admin
from streams.broker import Broker
from streams.cluster import Cluster
from streams.errors import MillraceError
from topologies.doctor import brokers, clock, database, groups, machine, ports, state, topics
from topologies.doctor.database import OrderDatabase
from topologies.doctor.finding import Finding, Report, Said, Skipped
from topologies.doctor.groups import Look
from topologies.doctor.patient import Patient, in_all_versions
from topologies.doctor.state import Kept
from topologies.kept_topics import kept_topics
from topologies.settings import Settings
from topologies.versions.register import read_register

Tell = Callable[[str], object]


@dataclass
class Examination:
    """What is examined: those that were ``named`` in any case, ``others`` if they have run here.

    ``cluster`` None: there is none to ask. ``wait_s`` is how long the two looks at the lag are apart, and those at the
    outbox; ``tell`` hears what is looked at now.
    """

    settings: Settings
    cluster: Cluster | None
    named: Sequence[Patient]
    others: Sequence[Patient]
    orders: OrderDatabase
    wait_s: float = 3.0
    tell: Tell = lambda _: None
    _said: list[Said] = field(default_factory=list)

    def run(self) -> Report:
        """Look at everything. Raises nothing that an operator could mend: that is a finding, or skipped."""
        self._part("packages", "packages", machine.packages)
        places = [("state", self.settings.state_dir), ("embedded broker", Broker(self.settings.home).directory)]
        self._part("disk", "disk", partial(machine.disks, places))
        self.tell("the brokers")
        found = brokers.look(self.cluster, Broker(self.settings.home).status())
        self._said += found.said
        if found.reachable is None:
            names = [one.name for one in (*self.named, *self.others)]
            self._part("state", "the state directory", partial(self._state, names, {}, {}))
        else:
            self._part("topics", "topics, groups and lag", partial(self._cluster, found.reachable, found.nodes))
        self._part("database", "the order database", partial(database.look, self.orders, self.wait_s))
        self._part("views", "the view server's port", partial(ports.look, self.settings))
        return Report(tuple(self._said))

    def _part(self, check: str, what: str, look: Callable[[], Iterable[Said]]) -> None:
        self.tell(what)
        try:
            self._said += look()
        except MillraceError as error:
            what = f"{what} could not be looked at: {error}"
            self._said.append(Finding(check, "not-examined", "error", what, "millrace doctor    # once more"))

    def _cluster(self, admin: Admin, nodes: int) -> Iterator[Said]:
        named, others = self._versions(admin.cluster)
        everybody = [*named, *others]
        found = topics.ask(admin, everybody)
        names = [one.name for one in everybody]
        looks = groups.look_twice(admin, names, self.wait_s)
        ran = [one.name for one in everybody if _has_run(one, found, looks[one.name][1])]
        running = [one for one in everybody if one in named or one.name in ran]
        if idle := [one.name for one in others if one.name not in ran]:
            yield Skipped("topics", f"no worker of {', '.join(idle)} has ever run here")
        members = {name: len(look.group.members) if look.group else 0 for name, (_, look) in looks.items()}
        kept = yield from self._state(names, members, found.ids)
        for one in running:
            if one.name in ran:
                yield from topics.look(one, found, nodes)
                yield from groups.look(one, looks[one.name], kept)
            else:
                yield _never(one)
        self.tell("the clock")
        yield from clock.brokers_clock(admin)
        sources = {name for one in running for name in one.sources}
        yield from clock.records_ahead(admin, sources, found, time.time() * 1000)

    def _versions(self, cluster: Cluster) -> tuple[list[Patient], list[Patient]]:
        register = read_register(cluster, self.settings.prefix)
        named, others = (in_all_versions(some, register, self.settings) for some in (self.named, self.others))
        return named, others

    def _state(
        self, names: Sequence[str], members: Mapping[str, int], topic_ids: Mapping[str, str]
    ) -> Generator[Said, None, list[Kept]]:
        directory = self.settings.state_dir
        yield from state.writable(directory, names)
        kept = [one for name in names for one in state.stores(directory, name)]
        yield from state.locks(kept, members)
        yield from state.contents(kept, topic_ids, directory)
        return kept


def _has_run(patient: Patient, found: topics.Topics, look: Look) -> bool:
    """Whether a worker of it was ever here; a view server makes all topics too, and leaves them empty."""
    return groups.has_run(look) or not found.written.isdisjoint(kept_topics(patient.topology.group))


def _never(patient: Patient) -> Finding:
    what = f"no worker of {patient.name} has ever run on this cluster"
    return Finding("groups", "never-run", "warning", what, patient.worker)
