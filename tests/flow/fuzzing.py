"""Requests that nobody would think of: schemathesis makes them up from an API's document, and holds answers to it."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import schemathesis
from aiohttp import web
from schemathesis.config import (
    ChecksConfig,
    CoveragePhaseConfig,
    ExamplesPhaseConfig,
    FuzzingPhaseConfig,
    GenerationConfig,
    PhasesConfig,
    PositiveDataAcceptanceConfig,
    ProjectConfig,
    ProjectsConfig,
    SchemathesisConfig,
    SimpleCheckConfig,
    StatefulPhaseConfig,
)
from schemathesis.engine import events, from_schema

from topologies.views.guard import Site
from topologies.views.server import url_of

SEED = 20_261_123
EXAMPLES = 20


@contextmanager
def serving(opened: Callable[[], AbstractAsyncContextManager[web.Application]]) -> Iterator[str]:
    """An application as it runs in production, its own connections included, in a thread; gives its URL."""
    started, ended = threading.Event(), asyncio.Event()
    url: list[str] = []
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with opened() as app:
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
            await runner.setup()
            await Site(runner, "127.0.0.1", 0).start()
            url.append(url_of(runner))
            started.set()
            await ended.wait()
            await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert started.wait(30)
        yield url[0]
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(30)
        loop.close()


def configured(phase: str, unexpected: set[str]) -> SchemathesisConfig:
    """Every check that is about one request; the same requests each time."""
    without = SimpleCheckConfig(enabled=False)
    checks = ChecksConfig(
        use_after_free=without,
        ensure_resource_availability=without,
        ignored_auth=without,
        # a hop that is longer than its window is as well-formed as can be
        positive_data_acceptance=PositiveDataAcceptanceConfig(enabled=False),
    )
    phases = PhasesConfig(
        examples=ExamplesPhaseConfig(enabled=False),
        coverage=CoveragePhaseConfig(
            enabled=phase == "coverage", generate_duplicate_query_parameters=True, unexpected_methods=unexpected
        ),
        fuzzing=FuzzingPhaseConfig(enabled=phase == "fuzzing"),
        stateful=StatefulPhaseConfig(enabled=False),
    )
    project = ProjectConfig(
        checks=checks,
        phases=phases,
        generation=GenerationConfig(max_examples=EXAMPLES, deterministic=True, no_shrink=True),
        request_timeout=20,
        continue_on_failure=True,
    )
    return SchemathesisConfig(seed=SEED, projects=ProjectsConfig(default=project))


@dataclass
class Heard:
    """What was asked, by operation, what was answered, and what of it the document does not say."""

    asked: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


def hear(document: dict[str, Any], url: str, phase: str, *, unexpected: set[str], without: str | None = None) -> Heard:
    """Ask all that one phase of schemathesis thinks of; no path that matches `without`."""
    whole = schemathesis.openapi.from_dict(document, config=configured(phase, unexpected))
    schema = whole if without is None else whole.exclude(path_regex=without)
    schema.config.update(base_url=url)
    heard = Heard()
    for event in from_schema(schema).execute():
        assert not isinstance(event, events.FatalError | events.NonFatalError), event
        if not isinstance(event, events.ScenarioFinished):
            continue
        recorder = event.recorder
        for case_id, checks in recorder.checks.items():
            made = recorder.interactions[case_id].request
            heard.failures += [
                f"{made.method} {made.uri[:300]}: {check.failure_info.failure}"
                for check in checks
                if check.failure_info is not None
            ]
        heard.asked[event.label or ""] += len(recorder.interactions)
        answered = [one.response for one in recorder.interactions.values() if one.response is not None]
        heard.statuses.update(response.status_code for response in answered)
    return heard
