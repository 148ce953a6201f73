"""Builds state, spool, sites and engine for a one-shot run, and closes them in order."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from replicator.cli.watch import Watch
from replicator.config.settings import Loaded
from replicator.engine import Engine
from replicator.policy.rule import Rule
from replicator.ports import State
from replicator.runs.bandwidth import follow
from replicator.runs.indexing import Indexer
from replicator.runs.wiring import Equipment, SitePool, build_engine, open_spool, site_names
from replicator.state.store import open_state


@dataclass(frozen=True)
class Wired:
    """The engine and the state of a command."""

    engine: Engine
    state: State


@contextlib.asynccontextmanager
async def wire(
    loaded: Loaded, rules: Sequence[Rule], watch: Watch, *, read_only: bool
) -> AsyncIterator[Wired]:
    """An engine for the rules, with their sites. `read_only`: without a spool, and the state is not written.

    Raises StateError.
    """
    async with contextlib.AsyncExitStack() as stack:
        state = await open_state(loaded.agent.state_path, clock=watch.clock, read_only=read_only)
        stack.push_async_callback(state.aclose)
        if not read_only:
            watch.events.subscribe(Indexer(state))
        spool = None
        if not read_only and any(len(rule.destinations) > 1 for rule in rules):
            spool = open_spool(loaded, watch.events, stack)
        pool = SitePool(watch.events, watch.clock)
        sites = await pool.take(loaded, site_names(rules))
        stack.push_async_callback(pool.give_back, sites)
        if loaded.bandwidth:
            following = asyncio.create_task(follow(lambda: (loaded.bandwidth, sites), watch.clock))
            stack.callback(following.cancel)
        yield Wired(build_engine(loaded, sites, Equipment(state, watch.events, watch.clock, spool)), state)
