"""Finding a topology by name: one of ours, or `module:attribute` of yours."""

import importlib
import sys
from typing import TYPE_CHECKING, Any

from streams.errors import MillraceError

if TYPE_CHECKING:  # the names must be there at once, for help and for completion at a shell
    from topologies.settings import Settings
    from topologies.topology import Topology

# A topology that is named here is run by `millrace worker <name>` and served by `millrace views`.
OURS = {
    "analytics": "topologies.sales:sales_topology",
    "behaviour": "topologies.behaviour:behaviour_topology",
    "recommendations": "topologies.recommendations:recommendations_topology",
}


def load_topology(name: str, settings: "Settings") -> "Topology":
    """The topology of that name. The attribute is a Topology, or a function from Settings to one.

    Modules are looked for in the working directory too. Raises MillraceError when there is none.
    """
    from topologies.topology import Topology

    module_name, _, attribute = OURS.get(name, name).partition(":")
    if not attribute:
        known = ", ".join(OURS)
        raise MillraceError(f"there is no topology {name!r}: give one of {known}, or yours as module:attribute")
    found = attribute_named(f"{module_name}:{attribute}", "topology")
    topology = found(settings) if callable(found) and not isinstance(found, Topology) else found
    if not isinstance(topology, Topology):
        raise MillraceError(f"{name!r} is a {type(topology).__name__}, not a Topology")
    return topology


def attribute_named(name: str, what: str) -> Any:
    """What `module:attribute` names, in the working directory too. Raises MillraceError that says `what` is missing."""
    module_name, _, attribute = name.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise MillraceError(f"{what} {name!r} cannot be loaded as module:attribute: {error}") from error
