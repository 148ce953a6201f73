"""What it costs to notice new signatures of 2,000 signed tags, with nothing to do.

From a fake registry that answers after 20 ms to a site in memory; fake and engine share a process. By the referrers API and
by fallback tags: a run within the day, the day's look at all of them, and a run that remembers nothing.
"""

from __future__ import annotations

import asyncio
import time

from aiohttp import web
from aiohttp.typedefs import Handler
from msgspec.structs import replace

from bench.compare import Bench
from bench.measure import Usage
from bench.peers import OURS
from bench.rows import Row
from replicator.demo.images import BuiltImage, image, layer, load
from replicator.engine.engine import Engine
from replicator.events import Events
from replicator.flow.clock import SystemClock
from replicator.model.companion import fallback_tag
from replicator.policy.pattern import Glob
from replicator.policy.rule import RepositorySelection, Rule
from replicator.sites.registry.settings import RegistrySettings
from replicator.sites.registry.site import RegistrySite
from replicator.state.memory import MemoryState
from tests.fakes import habits
from tests.fakes.memory import MemorySite
from tests.fakes.referrers import bundle, fallback_index
from tests.fakes.registry import FakeRegistry

NAME = "referrers"
REPOSITORIES = 20
TAGS = 100
DELAY_SECONDS = 0.02


async def referrers(bench: Bench) -> list[Row]:
    """A row for each way to list and each kind of run; the notes have the requests at the source."""
    images = [image(f"image {number}", [layer("shared", 100)]) for number in range(TAGS)]
    rows = []
    for way, habit in (("api", (_slow,)), ("fallback tags", (_slow, habits.no_referrers()))):
        async with FakeRegistry(*habit) as fake:
            memory = MemorySite("memory", page=1_000)
            _fill(fake, memory, images, tags=way != "api")
            for run, usage, requests in await _runs(fake, memory):
                bench.tell(f"  {way}, {run}: {requests} requests, {usage.seconds:.2f} s")
                notes = {"requests": float(requests), "a tag": requests / (REPOSITORIES * TAGS)}
                rows.append(Row(f"{NAME}, {way}, {run}", OURS, [usage], notes=notes))
    return rows


@web.middleware
async def _slow(request: web.Request, handler: Handler) -> web.StreamResponse:
    await asyncio.sleep(DELAY_SECONDS)
    return await handler(request)


def _fill(fake: FakeRegistry, memory: MemorySite, images: list[BuiltImage], *, tags: bool) -> None:
    """The same at both ends: each image with a signature; the source also with fallback tags where it has no API."""
    for repository in range(REPOSITORIES):
        for number, built in enumerate(images):
            for store in (fake.store, memory.store):
                load(store, f"app-{repository}", f"v{number}", built)
                load(store, f"app-{repository}", None, bundle(built))
            if tags:
                tag = fallback_tag(built.digest)
                load(fake.store, f"app-{repository}", tag, fallback_index(bundle(built)))


async def _runs(fake: FakeRegistry, memory: MemorySite) -> list[tuple[str, Usage, int]]:
    events, clock = Events(), SystemClock()
    site = RegistrySite(
        RegistrySettings("source", fake.url, docker_config=False, proxy=""), events=events, clock=clock
    )
    globs = tuple(Glob.parse(f"app-{number}") for number in range(REPOSITORIES))
    rule = Rule("rule", "source", ("memory",), RepositorySelection(globs))
    state = MemoryState(clock)

    async def run(name: str, rule: Rule, state: MemoryState) -> tuple[str, Usage, int]:
        engine = Engine(
            sites={"source": site, "memory": memory},
            state=state,
            events=events,
            clock=clock,
            spool=None,
            rules=(),
        )
        fake.requests.clear()
        began, cpu = time.perf_counter(), time.process_time()
        found = (await engine.sync([rule]))[0].destinations[0]
        usage = Usage(time.perf_counter() - began, time.process_time() - cpu, 0)
        if found.totals.tags.unchanged != REPOSITORIES * TAGS:
            raise AssertionError(f"{name}: {found.totals.tags}")
        return name, usage, len(fake.requests)

    try:
        return [
            await run("nothing remembered", rule, state),
            await run("within the day", rule, state),
            await run("the day's look", replace(rule, referrers_recheck=0.0), state),
            await run("without referrers", replace(rule, referrers="none"), state),
        ]
    finally:
        await site.aclose()
