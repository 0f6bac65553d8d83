"""`millrace bench recommendations`."""

import os
import signal
import sys
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console

from bench.freshness import own_cluster
from bench.measure import Outcome
from bench.quality import Asked, quality
from bench.recommendations import Profile, Run, summary
from bench.throughput import Result
from streams.errors import MillraceError
from topologies.cli.options import Bootstrap, Json
from topologies.settings import find_cluster, home_directory

Events = Annotated[int, typer.Option("--events", "-n", help="Events to measure with.")]
Rounds = Annotated[int, typer.Option("--rounds", min=1, help="How often each contender runs; medians count.")]
Profiled = Annotated[bool, typer.Option("--profile", help="Instead say where the workers' CPU time goes, by stage.")]
Quality = Annotated[bool, typer.Option("--quality", help="Compare with a batch, with implicit, with what was bought.")]
Products = Annotated[int, typer.Option("--products", min=10, help="Products of the simulated shop.")]
Count = Annotated[int, typer.Option("--sessions", min=100, help="Visits that make the history.")]
Users = Annotated[int, typer.Option("--users", min=1, help="Its customers.")]
Purchases = Annotated[int, typer.Option("--purchases", min=0, help="Held-out purchases to judge by; 0: none.")]


def register(bench: typer.Typer) -> None:
    """Add `recommendations` to `millrace bench`."""
    bench.command("recommendations", epilog="Example: millrace bench recommendations --profile")(recommendations)


def recommendations(
    events: Events = 200_000,
    rounds: Rounds = 3,
    profile: Profiled = False,
    judge: Quality = False,
    products: Products = 1_000,
    sessions: Count = 100_000,
    users: Users = 10_000,
    purchases: Purchases = 3_000,
    bootstrap: Bootstrap = None,
    json: Json = False,
) -> None:
    """Measure behaviour and recommendations beside a bare loop: same records, same broker, results checked.

    Topics and groups are named `bench-...` and deleted at the end.

    With --quality instead how right and how good the recommendations are, on a simulated shop and without a broker.
    With decay off, pair counts must equal a batch computation, and the ten nearest neighbours those of the library
    `implicit` (extra `compare`). Then the planted pairs are looked for, and held-out purchases: of the orders in the
    visits after the history, the last line, asked for with all that the user did before first touching it.
    """
    if judge:
        _quality(Asked(products, sessions, users, purchases), json)
    else:
        _throughput(events, 1 if profile else rounds, profile, bootstrap, json)


def _throughput(events: int, rounds: int, profile: bool, bootstrap: str | None, json: bool) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    named = bootstrap or os.environ.get("MILLRACE_BOOTSTRAP")
    cluster = find_cluster(os.environ, home_directory(os.environ), named) if named else None
    shown = Console(stderr=True)
    kinds: list[Profile] = ["stages", "functions"] if profile else [""] * rounds
    with own_cluster(cluster) as (found, _):
        run = Run(found, events)
        shown.print(f"{run.doings.count:,} events over {run.doings.hours:.1f} hours of event time")
        results = [run.round(lambda result: shown.print(_said(result)), kind) for kind in kinds]
    told = _profile(results) if profile else summary(results)
    if json:
        typer.echo(orjson.dumps(told))
    elif not profile:
        typer.echo("\n".join(_figures(told)))
    if not all(result.exact for results_of_one in results for result in results_of_one):
        raise MillraceError("results are not right: these figures mean nothing; please report it")


def _said(result: Result) -> str:
    outcome = result.outcome
    told = [
        f"{result.contender}: {outcome.eps:,.0f} events/s, {_us(outcome.cpu_s, outcome):.2f} us of CPU an event, "
        f"{'exact' if result.exact else 'WRONG'}"
    ]
    told += [f"  {stage.name}: {_us(stage.cpu_s, outcome):.2f} us" for stage in outcome.stages]
    told += [f"  {f.name}: {_us(f.own_s, outcome):.2f} us under the profiler" for f in outcome.functions]
    return "\n".join(told)


def _us(cpu_s: float, outcome: Outcome) -> float:
    return round(cpu_s / outcome.events * 1e6, 3)


def _profile(rounds: list[list[Result]]) -> dict[str, Any]:
    found: dict[str, Any] = {"exact": all(result.exact for results in rounds for result in results)}
    for result in (result for results in rounds for result in results):
        outcome = result.outcome
        one = found.setdefault(result.contender, {})
        one |= {"stages_us": {s.name: _us(s.cpu_s, outcome) for s in outcome.stages}} if outcome.stages else {}
        one |= {"functions_us": {f.name: _us(f.own_s, outcome) for f in outcome.functions}} if outcome.functions else {}
    return found


def _figures(told: dict[str, Any]) -> list[str]:
    lines = [
        f"bare loop: {told['bare_loop_eps']:,} events/s, {told['cpu_us_per_event']['bare_loop']} us of CPU an event"
    ]
    for name, ratio in told["ratios"].items():
        lines.append(
            f"{name}: {told[f'{name}_eps']:,} events/s, {ratio} of the bare loop; "
            f"{told['cpu_us_per_event'][name]} us of CPU an event, {told['cpu_ratios'][name]} of the bare loop's work"
        )
    return lines


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
