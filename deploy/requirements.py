"""Print what the `pyproject.toml` here asks for: its dependencies, and those of the extras that are named."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
for wanted in (project["dependencies"], *(project["optional-dependencies"][extra] for extra in sys.argv[1:])):
    print(*wanted, sep="\n")
