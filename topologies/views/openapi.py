"""The OpenAPI 3.1 document of a server: made of what its endpoints declare, so that the two cannot disagree.

Every route is in it. A view of a topology that does not describe itself is there with its path, the first line of its
docstring, and an object as its answer.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import msgspec

from topologies.topology import Topology
from topologies.views import answer_types as answers
from topologies.views.described import JSON, Described
from topologies.views.endpoints import ENDPOINTS, FOLLOWING, LAST_ID_HEADER
from topologies.views.guard import OPERATIONS, SUFFIX
from topologies.views.parameters import Parameter, Segment
from topologies.views.problems import CONTENT_TYPE

VERSION: Final = "3.1.0"
REF: Final = "#/components/schemas/{name}"
ABOUT: Final = """\
Live read models of Kafka topics. Every answer says how fresh it is, in `freshness`.

Parameters are read strictly: one that is not listed here, given twice or not understood is answered with 400.
Errors are `application/problem+json` (RFC 9457). A request needs no body; one of more than 16 KiB is answered with
413, one of unknown length with 411. Answers of some size are compressed for who accepts gzip. Pages of other origins
cannot read this API, unless the server is told of one (`MILLRACE_CORS_ORIGIN`).
"""
STREAM: Final = """\
The answer as a stream of events, asked for with /live after the path, or with `Accept: text/event-stream`: \
`snapshot` is the answer, `delta` a JSON Patch (RFC 6902) that makes it of the one before, `problem` what there is \
instead of it. Who comes back with the last id gets what was missed. There is a comment at least every 15 s."""
EVENTS: Final = "text/event-stream"
SAID: Final = {
    400: "A parameter is not right, `parameter` names it; or the request is too long or no HTTP",
    401: "The token is missing or wrong",
    404: "There is no such thing, or nothing is known of it",
    503: "Not yet, or not any more: ask again after `Retry-After` seconds",
    504: "The view did not come to what `after` asks for in time",
}
Tree = dict[str, Any]


def document(
    endpoints: Mapping[str, Described],
    *,
    read_token: bool = False,
    ops_token: bool = False,
    title: str = "Millrace views",
    about: str = ABOUT,
    purpose: str = "reads",
) -> Tree:
    """The document of a server with these endpoints, by path; with tokens if it asks for some.

    `purpose` is what the token is for that is not for operations.
    """
    endpoints = dict(sorted(endpoints.items()))

    def tokens(path: str, one: Described) -> str | None:
        if not one.guarded:
            return None
        if path in OPERATIONS and ops_token:
            return "operations"
        return purpose if read_token else None

    shapes = list(dict.fromkeys(shape for one in endpoints.values() for shape in _shapes(one)))
    references, components = msgspec.json.schema_components(shapes, ref_template=REF)
    schema_of = dict(zip(shapes, references, strict=True))
    paths = {}
    for path, one in endpoints.items():
        paths[path] = {one.method: _operation(path, one, schema_of, token=tokens(path, one))}
        if one.live and path + SUFFIX not in endpoints:
            paths[path + SUFFIX] = {"get": _stream(path, one, schema_of, token=tokens(path, one))}
    found: Tree = {
        "openapi": VERSION,
        "info": {"title": title, "version": _version(), "description": about},
        "paths": paths,
        "components": {"schemas": dict(sorted(components.items()))},
    }
    used = sorted({name for path in endpoints if (name := tokens(path, endpoints[path])) is not None})
    if used:
        found["components"]["securitySchemes"] = {name: {"type": "http", "scheme": "bearer"} for name in used}
    return found


def described(topologies: Iterable[Topology], paths: Iterable[str]) -> dict[str, Described]:
    """What the endpoints of these paths declare, the topologies' own views before all others."""
    views = {path: (topology, view) for topology in topologies for path, view in topology.views.items()}
    found = {}
    for path in paths:
        topology, view = views.get(path, (None, None))
        own = ENDPOINTS.get(path) if topology is None else topology.described.get(path)
        found[path] = own or undescribed(path, view)
    return found


def undescribed(path: str, view: Callable[..., Any] | None) -> Described:
    """What can be said of a view that says nothing of itself."""
    while isinstance(view, partial):
        view = view.func
    told = (inspect.getdoc(view) or "").partition("\n")[0].strip().rstrip(".")
    parameters = tuple(Segment(name, None) for name in path_names(path))
    return Described(told or "A view of its topology's own", parameters, problems=(404, 503))


def path_names(path: str) -> list[str]:
    """The parameters of a path.

    >>> path_names("/api/things/{id}/parts/{part}")
    ['id', 'part']
    """
    return re.findall(r"\{(\w+)\}", path)


def _shapes(described: Described) -> Iterable[type[msgspec.Struct]]:
    yield answers.Problem
    if described.answer is None:
        yield answers.Freshness
    if isinstance(described.answer, type):
        yield described.answer
    if described.body is not None:
        yield described.body
    yield from (shape for shape in described.others.values() if shape is not None)


def _operation(path: str, described: Described, schema_of: Mapping[Any, Tree], *, token: str | None) -> Tree:
    parameters = [*described.parameters, *(FOLLOWING if described.live else ())]
    found: Tree = {
        "operationId": "_".join([described.method, *re.findall(r"\w+", path)]),
        "summary": described.summary,
        "tags": [_tag(path)],
        "parameters": [_parameter(parameter) for parameter in parameters],
        "responses": _responses(described, schema_of, token=token),
    }
    if described.body is not None:
        found["requestBody"] = {"required": True, "content": {JSON: {"schema": schema_of[described.body]}}}
    if described.detail:
        found["description"] = described.detail
    if token is not None:
        found["security"] = [{token: []}]
    return found


def _stream(path: str, described: Described, schema_of: Mapping[Any, Tree], *, token: str | None) -> Tree:
    found = _operation(path, described, schema_of, token=token)
    found["operationId"] += "_live"
    found["summary"] += ", live"
    found["description"] = f"{described.detail} {STREAM}".strip()
    found["parameters"].append(_parameter(LAST_ID_HEADER))
    found["responses"]["200"] = _content("A stream of events", EVENTS, {"type": "string"})
    return found


def _tag(path: str) -> str:
    parts = path.split("/")
    return parts[2] if len(parts) > 2 and parts[1] == "api" else "server"


def _parameter(parameter: Parameter[Any]) -> Tree:
    found: Tree = {"name": parameter.name, "in": parameter.place, "schema": parameter.schema()}
    if parameter.about:
        found["description"] = parameter.about
    if parameter.required:
        found["required"] = True
    if parameter.example is not None:
        found["example"] = parameter.example
    return found


def _responses(described: Described, schema_of: Mapping[Any, Tree], *, token: str | None) -> Tree:
    good = _content(described.summary, described.content, _schema(described.answer, schema_of))
    found: Tree = {str(described.status): good}
    if described.live:
        found["200"]["content"][EVENTS] = {"schema": {"type": "string", "description": STREAM}}
    for status, shape in described.others.items():
        phrase = HTTPStatus(status).phrase
        found[str(status)] = {"description": phrase} if shape is None else _content(phrase, JSON, schema_of[shape])
    problem = schema_of[answers.Problem]
    statuses = {*described.problems, *((503, 504) if described.live else ())}
    statuses |= {400} | ({401} if token is not None else set())
    for status in sorted(statuses):
        found[str(status)] = _content(SAID.get(status, HTTPStatus(status).phrase), CONTENT_TYPE, problem)
    return dict(sorted(found.items()))


def _content(about: str, content: str, schema: Tree) -> Tree:
    return {"description": about, "content": {content: {"schema": schema}}}


def _schema(answer: type[msgspec.Struct] | Mapping[str, Any] | None, schema_of: Mapping[Any, Tree]) -> Tree:
    if answer is None:
        fresh = {"freshness": schema_of[answers.Freshness]}
        return {"type": "object", "properties": fresh, "required": ["freshness"]}
    return dict(answer) if isinstance(answer, Mapping) else schema_of[answer]


def _version() -> str:
    try:
        return version("millrace")
    except PackageNotFoundError:
        return "0"
