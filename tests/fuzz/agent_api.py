"""Serves an agent that does nothing, for schemathesis: `python -m tests.fuzz.agent_api PORT`, until it is killed."""

from __future__ import annotations

import asyncio
import sys

from replicator.daemon.http.server import listen
from tests.fakes.agent import FakeAgent, config, simple_rule


async def serve(port: int) -> None:
    """Serves it; one run is under way."""
    agent = FakeAgent(simple_rule(destinations=("fra", "sin")), loaded=config(listen=("127.0.0.1", port)))
    agent.runs.begin(
        rule="platform", source="hub", destinations=("fra",), cause="start", scope=None, at=agent.clock.now()
    )
    async with listen(agent):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
