"""Lets the flow tests import their shop, which is not a package."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
