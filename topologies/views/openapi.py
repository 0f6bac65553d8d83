"""The OpenAPI 3.1 document of a server: made of what its endpoints declare, so that the two cannot disagree.

Every GET route is in it. A view of a topology that does not describe itself is there with its path, the first line
of its docstring, and an object as its answer.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import msgspec

from topologies.views import answer_types as answers
from topologies.views.described import JSON, Described
from topologies.views.parameters import Parameter, Segment
from topologies.views.problems import CONTENT_TYPE

VERSION: Final = "3.1.0"
REF: Final = "#/components/schemas/{name}"
ABOUT: Final = """\
Live read models of Kafka topics. Every answer says how fresh it is, in `freshness`.

Parameters are read strictly: one that is not listed here, given twice or not understood is answered with 400.
Errors are `application/problem+json` (RFC 9457). A request needs no body; one of more than 16 KiB is answered with
413, one of unknown length with 411. Answers of some size are compressed for who accepts gzip. There is no CORS:
pages of other origins cannot read this API.
"""
SAID: Final = {
    400: "A parameter is not right; `parameter` names it",
    401: "The token is missing or wrong",
    404: "There is no such thing, or nothing is known of it",
    503: "Not yet: ask again after `Retry-After` seconds",
    504: "The view did not come to what `after` asks for in time",
}
Tree = dict[str, Any]


def document(endpoints: Mapping[str, Described], *, read_token: bool = False, ops_token: bool = False) -> Tree:
    """The document of a server with these endpoints, by path; with tokens if it asks for some."""
    secured = read_token or ops_token
    shapes = [
        answers.Problem,
        answers.Freshness,
        *dict.fromkeys(shape for one in endpoints.values() for shape in _shapes(one)),
    ]
    references, components = msgspec.json.schema_components(shapes, ref_template=REF)
    schema_of = dict(zip(shapes, references, strict=True))
    paths = {}
    for path, described in endpoints.items():
        secure = secured and path not in ("/healthz", "/readyz", "/", "/docs")
        paths[path] = {"get": _operation(path, described, schema_of, secure=secure)}
    found: Tree = {
        "openapi": VERSION,
        "info": {"title": "Millrace views", "version": _version(), "description": ABOUT},
        "paths": paths,
        "components": {"schemas": dict(sorted(components.items()))},
    }
    if secured:
        found["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return found


def undescribed(path: str, view: Callable[..., Any]) -> Described:
    """What can be said of a view that says nothing of itself."""
    inner = view
    while isinstance(inner, partial):
        inner = inner.func
    told = (inspect.getdoc(inner) or "").partition("\n")[0].strip()
    parameters = tuple(Segment(name) for name in path_names(path))
    return Described(told or f"A view of its topology's own: {path}", parameters, problems=(404, 503))


def path_names(path: str) -> list[str]:
    """The parameters of a path.

    >>> path_names("/api/things/{id}/parts/{part}")
    ['id', 'part']
    """
    return re.findall(r"\{(\w+)\}", path)


def _shapes(described: Described) -> Iterable[type[msgspec.Struct]]:
    if isinstance(described.answer, type):
        yield described.answer
    yield from described.others.values()


def _operation(path: str, described: Described, schema_of: Mapping[Any, Tree], *, secure: bool) -> Tree:
    found: Tree = {
        "operationId": "_".join(["get", *re.findall(r"\w+", path)]),
        "summary": described.summary,
        "tags": [_tag(path)],
        "parameters": [_parameter(parameter) for parameter in described.parameters],
        "responses": _responses(described, schema_of, secure=secure),
    }
    if described.detail:
        found["description"] = described.detail
    if secure:
        found["security"] = [{"token": []}]
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


def _responses(described: Described, schema_of: Mapping[Any, Tree], *, secure: bool) -> Tree:
    found: Tree = {"200": _content(described.summary, described.content, _schema(described.answer, schema_of))}
    for status, shape in described.others.items():
        found[str(status)] = _content(HTTPStatus(status).phrase, JSON, schema_of[shape])
    problem = schema_of[answers.Problem]
    statuses = {*described.problems, *([400] if described.strict else []), *([401] if secure else [])}
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
