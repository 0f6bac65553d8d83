"""A directory that cannot be written for a while, for root too, whom a directory's mode does not stop."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def unwritable(path: Path) -> Iterator[str]:
    """Make a directory unwritable, by the first way that this machine allows; yields which one it was.

    A read-only bind mount over it (needs the right to mount); for others than root its mode; the attribute
    `immutable`; at last, a file in its place. A process that has files open there goes on writing them.
    """
    for way in (_mounted, _by_mode, _immutable):
        with contextlib.ExitStack() as stack:
            if stack.enter_context(way(path)):
                yield way.__name__.strip("_")
                return
    aside = path.with_name(f"{path.name}.aside")
    path.rename(aside)
    path.write_text("a file where a directory should be")
    try:
        yield "replaced"
    finally:
        path.unlink()
        aside.rename(path)


@contextmanager
def _mounted(path: Path) -> Iterator[bool]:
    done = _run("mount", "--bind", path, path)
    try:
        yield done and _run("mount", "-o", "remount,ro,bind", path)
    finally:
        if done:
            # Lazily, where a process that ends has not let go yet.
            _run("umount", path) or _run("umount", "--lazy", path)


@contextmanager
def _by_mode(path: Path) -> Iterator[bool]:
    before = path.stat().st_mode
    path.chmod(0o555)
    try:
        yield not os.access(path, os.W_OK)
    finally:
        path.chmod(before)


@contextmanager
def _immutable(path: Path) -> Iterator[bool]:
    done = _run("chattr", "+i", path)
    try:
        yield done
    finally:
        if done:
            _run("chattr", "-i", path)


def _run(*command: str | Path) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False
