"""How soon the work of a lost agent goes on: killed, frozen, and cut off from the database alone.

`python -m bench.takeover [--times N] [--heartbeat 3s]` prints what docs/scaling.md quotes: three agents as processes, which copy
from a slow registry; one that is at work is lost, and the others' logs say when they took its work over.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import tempfile
import time
from pathlib import Path

from replicator.demo.images import image, layer
from replicator.demo.images import load as put
from tests.fakes.registry import FakeRegistry
from tests.fleet.processes import Crew, crew, until
from tests.fleet.proxy import Way, way_to
from tests.postgres import Postgres, running_postgres

RULE = """
[[rule]]
name = "apps"
source = "hub"
destinations = ["fra"]
repositories = ["**"]
interval = "1h"
"""
AGENTS = ("a", "b", "c")
SAYS = "took over "


async def main() -> None:
    """Runs everything."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--heartbeat", default="3s")
    options = parser.parse_args()
    print(f"cores: {os.cpu_count()}, load: {os.getloadavg()[0]:.1f}, heartbeat {options.heartbeat}")
    with running_postgres() as server:
        for how in ("killed", "frozen", "cut off"):
            seconds = [await lost(server, how, options.heartbeat) for _ in range(options.times)]
            print(f"{how}: {', '.join(f'{each:.1f}' for each in sorted(seconds))} s", flush=True)


async def lost(server: Postgres, how: str, heartbeat: str) -> float:
    """Seconds from the loss of an agent until another took its work over."""
    database = server.create()
    try:
        async with FakeRegistry() as hub, FakeRegistry() as fra, way_to(server.port) as way:
            for number in range(60):
                put(hub.store, f"app{number}", "v1", image(f"{number}", [layer(f"{number}", 100_000)]))
            sites = {
                "hub": f'url = "{hub.url}"\nlimits = {{ bytes_per_second = "100kB" }}\n',
                "fra": f'url = "{fra.url}"\n',
            }
            with tempfile.TemporaryDirectory() as folder:
                fleet = Crew(
                    Path(folder), database, sites, RULE, f'shards = 32\njobs = 4\nheartbeat = "{heartbeat}"'
                )
                async with crew(fleet) as agents:
                    return await _lose(agents, how, way)
    finally:
        server.drop(database)


async def _lose(agents: Crew, how: str, way: Way) -> float:
    first = await agents.start("a", port=way.port)
    others = [await agents.start(name) for name in AGENTS[1:]]
    await asyncio.sleep(6)  # all are at work, and have heard of each other
    began = time.monotonic()
    if how == "cut off":
        way.cut()
    else:
        first.send(signal.SIGKILL if how == "killed" else signal.SIGSTOP)
    await until(lambda: any(SAYS in other.log for other in others), agents)
    return time.monotonic() - began


if __name__ == "__main__":
    asyncio.run(main())
