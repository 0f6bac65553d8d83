"""Options that several commands share, so that they read alike everywhere."""

from pathlib import Path
from typing import Annotated

import typer

Home = Annotated[
    Path | None,
    typer.Option("--home", help="Where broker and state live; else MILLRACE_HOME, else ~/.millrace."),
]
Bootstrap = Annotated[
    str | None,
    typer.Option("--bootstrap", help="Kafka at host:port,...; else MILLRACE_BOOTSTRAP, else the embedded broker."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--database",
        help="Of the orders: mysql://user:password@host/name, postgresql://... or sqlite:///path; else "
        "MILLRACE_DATABASE, else orders.db in the home.",
        show_default=False,
    ),
]
PagesPort = Annotated[int | None, typer.Option("--port", help="Of its own pages; else the first free one from 6066.")]
PagesHost = Annotated[str, typer.Option("--host", help="Address of its own pages; 0.0.0.0 lets everybody in.")]
MemberState = Annotated[Path | None, typer.Option("--state", help="State directory: names and ports of this host.")]
MemberName = Annotated[
    str | None,
    typer.Option("--name", help="The member's name, which brings it back at once; else the first free slot."),
]
