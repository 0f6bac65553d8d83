"""What an endpoint takes and answers, declared once: its handler reads by it, and the API's document is made of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import msgspec
from multidict import MultiMapping

from topologies.views.parameters import Parameter, Repeated, checked

JSON: Final = "application/json"


@dataclass(frozen=True)
class Described:
    """One endpoint: asked with GET, or told something with POST, a `body` of JSON where it takes one.

    `answer` is a msgspec Struct that has the shape of the answer, or a JSON Schema of one's own; None: an object of any
    shape. Structs with `forbid_unknown_fields` promise that there is nothing else in it. `status` is what it answers
    with when all is well. `problems` are the statuses of the problems that it may answer with, beside those that every
    endpoint has; `others` other answers by their status, None for one without a body. A `live` one can be followed as a
    stream of events, one that is not `strict` takes any query, one that is not `guarded` needs no token.

        DEVICES = Described(
            "The devices of a site",
            (Segment("site"), Integer("n", 1, 100, default=20, about="how many")),
            answer=Devices,
            problems=(404,),
        )

        @shop.view("/api/devices/{site}", DEVICES)
        def devices(reader: Reader, given: Mapping[str, str]) -> dict[str, Any]: ...
    """

    summary: str
    parameters: tuple[Parameter[Any], ...] = ()
    answer: type[msgspec.Struct] | Mapping[str, Any] | None = None
    problems: tuple[int, ...] = ()
    detail: str = ""
    live: bool = True
    strict: bool = True
    guarded: bool = True
    content: str = JSON
    others: Mapping[int, type[msgspec.Struct] | None] = field(default_factory=dict)
    method: Literal["get", "post"] = "get"
    body: type[msgspec.Struct] | None = None
    status: int = 200

    def __post_init__(self) -> None:
        """Raise ValueError for a parameter that is declared twice."""
        names = [parameter.name for parameter in self.parameters]
        if len(set(names)) != len(names):
            raise ValueError(f"a parameter is declared twice among {', '.join(names)}")

    def read(self, query: MultiMapping[str]) -> dict[str, str]:
        """A query's parameters, for the declared ones to be read from. Raises BadParameter for any other, or twice."""
        asked = [parameter for parameter in self.parameters if parameter.place == "query"]
        return checked(query, [one.name for one in asked], [one.name for one in asked if isinstance(one, Repeated)])
