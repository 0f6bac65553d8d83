"""`millrace replay <topology> --as`, `diff`, `switch`, `rollback`, `drop`, `list`: versions beside the live one."""

import typer


def register(app: typer.Typer) -> None:
    """Add the commands to `millrace replay`: under `topologies.cli.replay.BESIDE` the one that takes `--as`."""
