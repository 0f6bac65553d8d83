"""`millrace bench recommendations`."""

from typing import Annotated, Any

import orjson
import typer
from rich.console import Console

from bench.quality import Asked, quality
from streams.errors import MillraceError
from topologies.cli.options import Json

Quality = Annotated[bool, typer.Option("--quality", help="Compare with a batch, with implicit, with what was bought.")]
Products = Annotated[int, typer.Option("--products", min=10, help="Products of the simulated shop.")]
Count = Annotated[int, typer.Option("--sessions", min=100, help="Visits that make the history.")]
Users = Annotated[int, typer.Option("--users", min=1, help="Its customers.")]
Purchases = Annotated[int, typer.Option("--purchases", min=0, help="Held-out purchases to judge by; 0: none.")]


def register(bench: typer.Typer) -> None:
    """Add `recommendations` to `millrace bench`."""
    bench.command("recommendations")(recommendations)


def recommendations(
    judge: Quality = False,
    products: Products = 1_000,
    sessions: Count = 100_000,
    users: Users = 10_000,
    purchases: Purchases = 3_000,
    json: Json = False,
) -> None:
    """Measure how right and how good the recommendations are, on a simulated shop and without a broker.

    With decay off, pair counts must equal a batch computation, and the ten nearest neighbours those of the library
    `implicit` (extra `compare`). Then the planted pairs are looked for, and held-out purchases: of the orders in the
    visits after the history, the last line, asked for with all that the user did before first touching it.
    """
    if not judge:
        raise MillraceError("say what to measure: --quality")
    _quality(Asked(products, sessions, users, purchases), json)


def _quality(asked: Asked, json: bool) -> None:
    found = quality(asked, Console(stderr=True).print)
    typer.echo(orjson.dumps(found) if json else "\n".join(lines(found)))
    wrong = sum(found[kind][name] for kind in ("seen", "bought") for name in ("pairs_wrong", "popularity_wrong"))
    if wrong or found["seen"]["nearest_differ"] or found["bought"]["nearest_differ"]:
        raise MillraceError("what was streamed differs from the batch computation, or a cap was reached; see above")


def lines(found: dict[str, Any]) -> list[str]:
    """The figures in words."""
    told = [f"{found['events']:,} events, {found['sessions']:,} visits, {found['products']:,} products"]
    for kind in ("seen", "bought"):
        of = found[kind]
        told += [
            f"{kind} together, {of['baskets']:,} baskets, {of['pairs']:,} pairs: {of['pairs_wrong']} pair counts and "
            f"{of['popularity_wrong']} popularities differ from the batch; counts low by at most {of['counts_low_by']}",
            f"  ten nearest neighbours of {of['products_compared']:,} products: {of['nearest_differ']} differ from "
            "implicit's, ties aside",
        ]
    planted = found["planted"]
    told.append(
        f"planted pairs, {planted['pairs']}: recall@10 {planted['recall_by_bought']:.3f} by what is bought together, "
        f"{planted['recall_by_seen']:.3f} by what is seen together"
    )
    if "held_out" in found:
        of = found["held_out"]
        told.append(
            f"held-out purchases, {of['purchases']:,}: hit rate@10 {of['ours']:.3f}, "
            f"popularity {of['popularity']:.3f}, implicit {of['implicit']:.3f}; {of['ours_ms']:.2f} ms CPU an answer"
        )
    return told
