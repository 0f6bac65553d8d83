"""The machine: room on its disks, Python and the packages within their ranges."""

import platform
import shutil
import tomllib
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from topologies.doctor.finding import Finding, Fine, Said, Severity

NAME: Final = "millrace"
# RocksDB and Kafka need room to rewrite their files, long before the last byte is taken.
LOW_BYTES: Final = 1 << 30
LOW_SHARE: Final = 0.05
FULL_BYTES: Final = 128 << 20


def packages() -> Iterator[Said]:
    """Python and the installed packages, against the ranges that millrace declares."""
    python, requirements = _declared()
    running = platform.python_version()
    if not SpecifierSet(python).contains(running, prereleases=True):
        what = f"Python {running} runs this, {python} is needed"
        yield Finding("packages", "python-version", "error", what, "make setup PYTHON=/path/to/python3.11")
    wrong = list(out_of_range(requirements))
    yield from wrong
    if not wrong:
        yield Fine("packages", f"Python {running}, {len(requirements)} packages in their ranges")


def out_of_range(requirements: Iterable[Requirement]) -> Iterator[Finding]:
    """Packages that are not installed, or in a version that was never tried."""
    for wanted in requirements:
        mend = f"python -m pip install '{wanted.name}{wanted.specifier}'"
        try:
            found = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            yield Finding("packages", "package-missing", "error", f"{wanted.name} is not installed", mend)
            continue
        if not wanted.specifier.contains(found, prereleases=True):
            what = f"{wanted.name} {found} is installed, {wanted.specifier} is needed"
            yield Finding("packages", "package-version", "error", what, mend)


def _declared() -> tuple[str, list[Requirement]]:
    """The range of Python and the requirements, extras left out: as installed, else as the checkout says."""
    try:
        installed = metadata.distribution(NAME)
    except metadata.PackageNotFoundError:
        project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
        return project["requires-python"], [Requirement(line) for line in project["dependencies"]]
    wanted = [Requirement(line) for line in installed.requires or ()]
    mine = [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    return installed.metadata["Requires-Python"] or ">=3.11", mine


def disks(directories: Iterable[tuple[str, Path]]) -> Iterator[Said]:
    """Room where each directory is, by its name for people; a file system is looked at once."""
    seen: set[int] = set()
    for name, directory in directories:
        there = _nearest(directory)
        if there.stat().st_dev in seen:
            continue
        seen.add(there.stat().st_dev)
        usage = shutil.disk_usage(there)
        said = f"{_gib(usage.free)} free of {_gib(usage.total)} where the {name} is ({directory})"
        if usage.free >= max(FULL_BYTES, min(LOW_BYTES, LOW_SHARE * usage.total)):
            yield Fine("disk", said)
            continue
        mend = f"du -xh {there} | sort -h | tail    # and free some, or move it: MILLRACE_HOME, MILLRACE_STATE"
        severity: Severity = "error" if usage.free < FULL_BYTES else "warning"
        yield Finding("disk", "disk-full", severity, f"only {said}", mend)


def _nearest(directory: Path) -> Path:
    """The directory, or the nearest one above it that exists."""
    return next(path for path in (directory, *directory.parents) if path.exists())


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= LOW_BYTES else f"{size / 2**20:.0f} MiB"
