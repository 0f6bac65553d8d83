"""`millrace replay`: build a topology's tables anew from the log, in place (`--from`) or beside the live ones (`--as`).

What follows `replay` is a topology, or one of the commands that work with versions. A topology with `--as` goes to the
command named `BESIDE`, which `topologies.cli.replay_versions` registers; any other to `IN_PLACE`.
"""

from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from topologies.cli import replay_versions

IN_PLACE: Final = "TOPOLOGY --from"
BESIDE: Final = "TOPOLOGY --as"


class TopologyFirst(TyperGroup):
    """A group whose first argument may be a topology: then the options say which command it is."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command that is meant, and what it is given."""
        if args[0] in self.commands:
            return super().resolve_command(ctx, args)
        beside = any(argument == "--as" or argument.startswith("--as=") for argument in args)
        return "", self.commands[BESIDE if beside else IN_PLACE], args


def register(app: typer.Typer) -> None:
    """Add `replay` to `millrace`."""
    replay = typer.Typer(
        cls=TopologyFirst,
        help="Build a topology's tables anew from the log: in place, or a new version beside the live one.",
        no_args_is_help=True,
        # An option before the topology is the command's, not the group's.
        context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    )
    replay.callback()(_replay)
    replay.command(IN_PLACE)(in_place)
    replay_versions.register(replay)
    app.add_typer(replay, name="replay")


def _replay() -> None:
    """Keep `millrace replay` a group."""


def in_place(
    topology: Annotated[str, typer.Argument()], begin: Annotated[str, typer.Option("--from")] = "earliest"
) -> None:
    """Build the tables anew from the log, in place."""
    typer.echo(f"{topology} {begin}")
