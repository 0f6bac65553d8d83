"""What a docstring shows is what comes out."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYERS = ("streams", "agents", "tables", "topologies", "bench")
SHOWING = [path for layer in LAYERS for path in sorted((ROOT / layer).rglob("*.py")) if ">>> " in path.read_text()]


@pytest.mark.parametrize("path", SHOWING, ids=lambda path: str(path.relative_to(ROOT)))
def test_examples_in_docstrings_hold(path: Path) -> None:
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
    found = doctest.testmod(module)
    assert found.attempted
    assert not found.failed
