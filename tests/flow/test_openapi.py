"""The API's document: valid, complete, and true of what the server takes and answers."""

import re
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import cache
from typing import Any

import orjson
import pytest
from aiohttp.test_utils import TestClient, TestServer
from behaving import booked, simulated
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from whole_shop import WholeShop

from topologies.views.described import Described
from topologies.views.endpoints import ENDPOINTS
from topologies.views.guard import Access

Client = TestClient[Any, Any]
Tree = dict[str, Any]
# What must be given beside the parameter that is looked at.
GIVEN = {
    "/api/batch": {"view": "/api/tables/nothing"},
    "/api/explain": {"table": "sales_by_total", "key": "total", "window": "2025-01-01T00:05:00Z"},
}
FOLLOWED = Described("a topology's")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeShop]:
    shop = WholeShop(tmp_path_factory.mktemp("shop"))
    yield shop
    shop.close()


@pytest.fixture
async def client(shop: WholeShop) -> AsyncIterator[Client]:
    await shop.compute_trends()
    async with TestClient(TestServer(shop.app())) as client:
        yield client


async def document_of(client: Client) -> Tree:
    response = await client.get("/openapi.json")
    assert (response.status, response.content_type) == (200, "application/json")
    found: Tree = orjson.loads(await response.read())
    return found


def resolved(document: Tree, schema: Tree) -> Draft202012Validator:
    """A validator that finds the document's components."""
    return Draft202012Validator({**schema, "components": document["components"]})


@cache
def known(path: str) -> Mapping[str, str]:
    """Something that there is, for every parameter of a path."""
    user = next(iter(booked(simulated()[:1_500]).sessions())).user_id
    product = next(product for session in booked(simulated()).sessions() for product in session.bought)
    return {
        "userId": user,
        "name": "docs.js" if path.startswith("/docs") else "sales_by_category",
        "version": "0",
        "id": product if "products" in path else user,
    }


def filled(path: str) -> str:
    return path.format(**known(path))


def given(path: str) -> dict[str, str]:
    return GIVEN.get(path.removesuffix("/live"), {})


async def test_the_document_is_openapi_3_1(client: Client) -> None:
    document = await document_of(client)
    assert document["openapi"].startswith("3.1")
    OpenAPIV31SpecValidator(document).validate()


async def test_every_route_is_in_the_document_and_nothing_else(client: Client) -> None:
    paths = set((await document_of(client))["paths"])
    routes = client.app.router.routes()
    assert paths == {r.resource.canonical for r in routes if r.method == "GET" and r.resource is not None}


async def test_every_endpoint_of_the_server_describes_itself(shop: WholeShop, client: Client) -> None:
    own = {path for views in shop.views for path in views.topology.views}
    paths = {path.removesuffix("/live") for path in (await document_of(client))["paths"]}
    assert paths - own <= set(ENDPOINTS)
    assert all(
        views.topology.described.keys() >= views.topology.views.keys() - {"/api/plain/{id}"} for views in shop.views
    )


async def test_a_view_that_does_not_describe_itself_has_the_first_line_of_its_docstring(client: Client) -> None:
    plain = (await document_of(client))["paths"]["/api/plain/{id}"]["get"]
    assert plain["summary"] == "What it was given"
    assert next((one["name"], one["in"]) for one in plain["parameters"]) == ("id", "path")


async def test_every_answer_has_the_shape_that_is_documented(client: Client) -> None:
    document = await document_of(client)
    for path, item in document["paths"].items():
        async with client.get(filled(path), params=given(path)) as response:
            said = item["get"]["responses"][str(response.status)]
            assert {response.content_type, "*/*"} & said["content"].keys(), (path, response.content_type)
            if response.content_type.endswith("json"):
                schema = said["content"][response.content_type]["schema"]
                resolved(document, schema).validate(orjson.loads(await response.read()))
            assert response.status == (404 if path.startswith("/page") else 200), path


async def test_a_streams_first_answer_has_the_shape_that_is_documented(client: Client) -> None:
    document = await document_of(client)
    for path, item in document["paths"].items():
        if path + "/live" in document["paths"]:
            schema = item["get"]["responses"]["200"]["content"]["application/json"]["schema"]
            async with client.get(filled(path) + "/live", params=given(path)) as response:
                while not (line := await response.content.readline()).startswith(b"data: "):
                    assert line
            resolved(document, schema).validate(orjson.loads(line.removeprefix(b"data: ")))


def examples(parameter: Tree) -> list[str]:
    """Values that a parameter's schema allows."""
    schema = parameter["schema"]
    if "example" in parameter:
        return [str(parameter["example"])]
    if "enum" in schema:
        return list(schema["enum"])
    if schema.get("type") == "integer":
        return [str(schema[bound]) for bound in ("minimum", "maximum", "default")]
    if "anyOf" in schema:
        return ["1767225600000", "2026-01-01T00:00:00Z", "2026-01-01"]
    return {
        "before": ["0:00"],
        "window": ["5m", "1d"],
        "hop": ["1m"],
        "size": ["1m", "1h"],
        "view": ["/api/sales"],
        "wait": ["0", "2.5"],
    }.get(parameter["name"], ["books"])


async def test_every_documented_parameter_is_accepted(client: Client) -> None:
    for path, item in (await document_of(client))["paths"].items():
        for parameter in item["get"]["parameters"]:
            if parameter["in"] != "query" or parameter["name"] in ("after", "cursor"):
                continue
            for value in examples(parameter):
                if parameter["name"] == "by" and path.startswith("/api/explain"):
                    continue  # in place of a table
                async with client.get(filled(path), params=given(path) | {parameter["name"]: value}) as response:
                    # products have no customers; of what is not known there is nothing
                    assert response.status in (200, 404) or value == "customers", await response.text()


async def test_every_undocumented_parameter_is_refused(client: Client) -> None:
    for path in (await document_of(client))["paths"]:
        if ENDPOINTS.get(path.removesuffix("/live"), FOLLOWED).strict and not path.startswith("/api/plain"):
            response = await client.get(f"{filled(path)}?another=1")
            body = orjson.loads(await response.read())
            assert (response.status, body["parameter"]) == (400, "another"), path


async def test_every_parameter_but_a_list_is_refused_when_it_is_repeated(client: Client) -> None:
    for path, item in (await document_of(client))["paths"].items():
        for parameter in item["get"]["parameters"]:
            name, value = parameter["name"], examples(parameter)[0]
            if parameter["in"] == "query" and parameter["schema"].get("type") != "array":
                response = await client.get(f"{filled(path)}?{name}={value}&{name}={value}")
                assert (response.status, (await response.json(content_type=None))["parameter"]) == (400, name)


async def test_bounds_in_the_document_are_those_of_the_server(client: Client) -> None:
    for path, item in (await document_of(client))["paths"].items():
        for parameter in item["get"]["parameters"]:
            schema, name = parameter["schema"], parameter["name"]
            outside = [schema["minimum"] - 1, schema["maximum"] + 1] if schema.get("type") == "integer" else []
            for value in outside:
                response = await client.get(f"{filled(path)}?{name}={value}")
                assert response.status == 400, (path, name, value)


async def test_the_page_is_open_and_the_document_needs_the_token(shop: WholeShop) -> None:
    async with TestClient(TestServer(shop.app(access=Access("secret")))) as client:
        page = await client.get("/docs")
        assert (page.status, page.content_type) == (200, "text/html")
        files = re.findall(r"(?:src|href)=\"(docs/[^\"]+)\"", await page.text())
        assert files
        for file in files:
            assert (await client.get(f"/{file}")).status == 200
        assert (await client.get("/docs/serve.py")).status == 404
        assert (await client.get("/openapi.json")).status == 401
        response = await client.get("/openapi.json", headers={"Authorization": "Bearer secret"})
        document = orjson.loads(await response.read())
        assert document["components"]["securitySchemes"]["reads"]["scheme"] == "bearer"
        assert "401" in document["paths"]["/api/sales"]["get"]["responses"]
        assert "security" not in document["paths"]["/healthz"]["get"]
        OpenAPIV31SpecValidator(document).validate()


async def test_the_document_is_answered_with_304_to_who_has_it(client: Client) -> None:
    tag = (await client.get("/openapi.json")).headers["ETag"]
    assert (await client.get("/openapi.json", headers={"If-None-Match": tag})).status == 304
