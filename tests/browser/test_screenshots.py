"""The README's pictures: `pytest tests/browser/test_screenshots.py --screenshots topologies/page/screenshots`."""

from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from running import Running, running, shown, wait_until

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

pillow = pytest.importorskip("PIL.Image", reason="needs the extra `browser`")
RATE = 30.0
USERS = 12_000
LARGEST = 200_000
NOT_YET = ("", "\N{EN DASH}", "0")
# name, width, height, colours, tab
PICTURES = [
    ("light", 1280, 1180, "light", "Shop"),
    ("dark", 1280, 800, "dark", "Shop"),
    ("phone", 390, 844, "light", "Shop"),
    ("operations", 1280, 800, "dark", "Operations"),
]


@pytest.fixture
def directory(request: pytest.FixtureRequest) -> Path:
    found: Path | None = request.config.getoption("--screenshots")
    if found is None:
        pytest.skip("makes pictures where --screenshots says")
    found.mkdir(parents=True, exist_ok=True)
    return found


def test_pictures_of_a_shop_in_full_swing(
    directory: Path, browser: Any, kafka_broker: Any, tmp_path: Path, new_page: Callable[..., Any]
) -> None:
    with running(kafka_broker.cluster(), tmp_path, events_per_s=RATE, users=USERS, prefix="") as shop:
        shop.begin(RATE)
        for name, width, height, scheme, tab in PICTURES:
            page = shown(new_page(shop.url, color_scheme=scheme, viewport={"width": width, "height": height}))
            page.click(f"nav >> text={tab}")
            page.mouse.move(0, 0)
            wait_until(partial(settled, page, shop), "everything is there")
            file = directory / f"{name}.png"
            drawn = pillow.open(BytesIO(page.screenshot()))
            drawn.convert("RGB").quantize(256, dither=pillow.Dither.NONE).save(file, optimize=True)
            print(f"\n{file}: {file.stat().st_size:,} bytes")
            assert file.stat().st_size < LARGEST
        shop.pause()


def settled(page: Any, shop: Running) -> bool:
    page.wait_for_timeout(2_000)
    if page.is_visible("#operations-tab") and page.inner_text("#operations-rate") in NOT_YET:
        return False
    if page.is_visible("#minutes") and page.inner_text("#revenue + .against").strip() == "":
        return False
    return bool(page.get_attribute("body", "data-state") == "live" and shop.fresh["connected"])
