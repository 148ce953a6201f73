"""What a run with nothing to do costs at each vendor: by its own listing, and by a HEAD for each tag.

10,000 tags in 20 repositories of the vendor's fake, which answers after 20 ms. Fake and engine share a process.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from aiohttp import web
from aiohttp.typedefs import Handler

from bench.compare import Bench
from bench.measure import Usage
from bench.peers import OURS
from bench.rows import Row
from replicator.demo.images import BuiltImage, image, layer, load
from replicator.engine.engine import Engine
from replicator.events import Events
from replicator.flow.clock import SystemClock
from replicator.policy.pattern import Glob
from replicator.policy.rule import RepositorySelection, Rule
from replicator.sites.registry.site import RegistrySite
from replicator.state.memory import MemoryState
from tests.fakes.memory import MemorySite
from tests.fakes.vendors.known import BULK
from tests.fakes.vendors.vendor import VendorRegistry

NAME = "bulk-listing"
REPOSITORIES = 20
TAGS = 500
DELAY_SECONDS = 0.02
_PAGES = {"harbor": 100, "ghcr": 100, "ecr": 1000}
"""Entries of a page as the vendors have them, where the fakes have fewer."""
_AWS = {
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "none",
    "AWS_DEFAULT_REGION": "eu-west-1",
}


async def bulk_listing(bench: Bench) -> list[Row]:
    """One row for each vendor; its notes have the other way."""
    images = [image(f"image {number}", [layer("shared", 100)]) for number in range(TAGS)]
    rows = []
    for vendor in BULK:
        async with vendor(_slow) as fake:
            fake.page = _PAGES.get(fake.kind, fake.page)
            with _environment({**_AWS, "AWS_ENDPOINT_URL_ECR": fake.url}):
                memory = MemorySite("memory", page=1_000)
                names = _fill(fake, memory, images)
                bulk, requests = await _idle(fake, memory, names, fake.kind)
                heads, asked = await _idle(fake, memory, names, "distribution")
        notes = {
            "requests": float(requests),
            "requests by HEAD": float(asked),
            "s by HEAD": heads.seconds,
            "times faster": heads.seconds / bulk.seconds,
        }
        bench.tell(
            f"  {fake.kind}: {requests} requests, {bulk.seconds:.2f} s; by HEAD {asked}, {heads.seconds:.2f} s"
        )
        rows.append(Row(f"{NAME} {fake.kind}", OURS, [bulk], notes=notes))
    return rows


@web.middleware
async def _slow(request: web.Request, handler: Handler) -> web.StreamResponse:
    await asyncio.sleep(DELAY_SECONDS)
    return await handler(request)


def _fill(fake: VendorRegistry, memory: MemorySite, images: list[BuiltImage]) -> list[str]:
    """The same at both ends."""
    names = [f"{fake.repository}-{number}" for number in range(REPOSITORIES)]
    for name in names:
        for number, built in enumerate(images):
            for store in (fake.store, memory.store):
                load(store, name, f"v{number}", built)
    return names


async def _idle(fake: VendorRegistry, memory: MemorySite, names: list[str], kind: str) -> tuple[Usage, int]:
    """What the second run costs, and how many requests it makes; the first one learns what is there."""
    events, clock = Events(), SystemClock()
    site = RegistrySite(replace(fake.settings("vendor"), kind=kind), events=events, clock=clock)
    globs = tuple(Glob.parse(name) for name in names)
    rule = Rule("rule", "vendor", ("memory",), RepositorySelection(globs))
    engine = Engine(
        sites={"vendor": site, "memory": memory},
        state=MemoryState(clock),
        events=events,
        clock=clock,
        spool=None,
        rules=(),
    )
    try:
        await engine.sync([rule])
        fake.requests.clear()
        began, cpu = time.perf_counter(), time.process_time()
        found = (await engine.sync([rule]))[0].destinations[0]
        usage = Usage(time.perf_counter() - began, time.process_time() - cpu, 0)
    finally:
        await site.aclose()
    if found.totals.tags.unchanged != REPOSITORIES * TAGS:
        raise AssertionError(f"{kind}: {found.totals.tags}")
    return usage, len(fake.requests)


@contextmanager
def _environment(more: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in more}
    os.environ.update(more)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
