"""Chromium over a running demo. Without playwright or a Chromium of the system these tests are skipped."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from running import Running, running, shown

from streams.cluster import Cluster

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

NewPage = Callable[..., Any]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--screenshots", type=Path, help="Make the README's pictures, into this directory.")


@pytest.fixture(scope="package")
def shop(browser: Any, kafka_broker: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One demo for all tests; each leaves it running, and paused."""
    cluster: Cluster = kafka_broker.cluster()
    with running(cluster, tmp_path_factory.mktemp("demo")) as found:
        yield found


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    """One browser for all tests. It ends with this package: while it is there, no other event loop can begin."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs the extra: pip install -e '.[browser]'")
    if CHROMIUM is None:
        pytest.skip("needs a Chromium: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        # as root, as in a container, Chromium has no sandbox
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def new_page(browser: Any) -> Iterator[NewPage]:
    """Make a page in a profile of its own: `new_page(url, color_scheme=..., viewport=...)`; it may log no error."""
    contexts, errors = [], []

    def make(url: str, **options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, "locale": "en-US", **options})
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        return page

    yield make
    for context in contexts:
        context.close()
    assert errors == []


@pytest.fixture
def page(new_page: NewPage, shop: Running) -> Any:
    """The page, with everything shown."""
    return shown(new_page(shop.url))
