"""The page's files as they are handed out: cached for good by their content, open to everybody, from here alone."""

import gzip
import re
from collections.abc import AsyncIterator
from importlib.resources import files
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from multidict import CIMultiDictProxy
from views_shop import sales

from topologies import page
from topologies.page.serve import bundle
from topologies.views.guard import Access
from topologies.views.server import attach, views_app

Client = TestClient[Any, Any]


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    app = views_app([sales()], Access("token-for-reads"))
    attach(app)
    async with TestClient(TestServer(app), auto_decompress=False) as found:
        yield found


async def fetched(client: Client, path: str, **headers: str) -> tuple[int, CIMultiDictProxy[str], bytes]:
    response = await client.get(path, headers=headers)
    return response.status, response.headers, await response.read()


def assets() -> list[str]:
    return [f"/page/{bundle().version}/{name}" for name in bundle().assets]


async def test_the_page_and_its_files_need_no_token_and_say_nothing_of_the_shop(client: Client) -> None:
    for path in ("/", *assets()):
        status, headers, body = await fetched(client, path)
        assert status == 200
        assert b"sales_by" not in body
        assert headers["Content-Security-Policy"].startswith("default-src 'self'")
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Content-Type"].partition(";")[0] in {
            "text/html", "text/css", "text/javascript", "image/svg+xml",
        }  # fmt: skip


async def test_files_are_kept_for_good_and_the_page_is_asked_for_each_time(client: Client) -> None:
    _, headers, _ = await fetched(client, "/")
    assert headers["Cache-Control"] == "no-cache"
    for path in assets():
        _, headers, _ = await fetched(client, path)
        assert "immutable" in headers["Cache-Control"]


async def test_what_a_client_has_is_not_sent_again(client: Client) -> None:
    for path in ("/", *assets()):
        for encoding in ("identity", "gzip"):
            _, headers, body = await fetched(client, path, **{"Accept-Encoding": encoding})
            tag = headers["ETag"]
            assert not tag.startswith("W/")
            again, _, nothing = await fetched(client, path, **{"Accept-Encoding": encoding, "If-None-Match": tag})
            assert (again, nothing) == (304, b"")
            assert len(body) > 0


async def test_compressed_is_the_same_and_another_tag(client: Client) -> None:
    for path in ("/", *assets()):
        _, plain, body = await fetched(client, path, **{"Accept-Encoding": "identity"})
        _, packed, smaller = await fetched(client, path, **{"Accept-Encoding": "gzip"})
        assert gzip.decompress(smaller) == body
        assert packed["Content-Encoding"] == "gzip"
        assert packed["ETag"] != plain["ETag"]
        assert packed["Vary"] == "Accept-Encoding"


@pytest.mark.parametrize(
    "path", ["/page/0123/app.js", "/page/{}/nothing.js", "/page/{}/index.html", "/page/{}/..%2fserve.py"]
)
async def test_only_files_of_this_version_are_there(client: Client, path: str) -> None:
    assert (await fetched(client, path.format(bundle().version)))[0] == 404


def texts() -> dict[str, str]:
    static = files(page).joinpath("static")
    return {file.name: file.read_text() for file in static.iterdir()}


def test_every_file_that_is_named_is_there() -> None:
    found = texts()
    named = set(re.findall(r"page/\{\{version\}\}/([\w.]+)", found["index.html"]))
    for name, text in found.items():
        if name.endswith(".js"):
            named |= set(re.findall(r'from "\./([\w.]+)"', text))
    assert named == set(found) - {"index.html"}


def test_nothing_comes_from_elsewhere() -> None:
    for name, text in texts().items():
        for url in re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"'`)]*", re.sub(r"(?m)(^|\s)//.*$", "", text)):
            assert url.startswith("http://www.w3.org/"), f"{name} names {url}"


def test_nothing_is_written_as_html_or_run_from_text() -> None:
    for name, text in texts().items():
        if name.endswith(".js"):
            assert not re.search(
                r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text
            ), name
    assert not re.search(r"<script(?![^>]*src=)|\son\w+=|<style|\sstyle=", texts()["index.html"])
