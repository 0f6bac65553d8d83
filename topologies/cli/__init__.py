"""The command line `millrace`: one module a command, imported only when that command is run.

To add a command: write a module of this package with `def register(app: typer.Typer) -> None` that adds it to
the app (`app.command("simulate")(simulate)` or `app.add_typer(...)`), and a line in `commands.COMMANDS`.
"""

import os
import sys
from collections.abc import Sequence

from streams.errors import MillraceError


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `millrace` with the process's arguments, or those given, and exit.

    What an operator can act on is one red line on stderr and exit code 1; wrong usage exits with 2.
    """
    from topologies.cli.commands import build
    from topologies.cli.completing import words_before

    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        build(words_before(os.environ) or given)(given)
    except MillraceError as error:
        _complain(str(error))
        sys.exit(1)


def _complain(message: str) -> None:
    from rich.console import Console
    from rich.text import Text

    Console(stderr=True).print(Text(f"error: {message}", style="red"), soft_wrap=True)
