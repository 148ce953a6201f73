"""Builds state, spool, sites and engine for a one-shot run, and closes them in order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from types import ModuleType

from replicator.cli.watch import Watch
from replicator.config.settings import Loaded
from replicator.engine import Engine
from replicator.events import OF_EACH_REQUEST
from replicator.flow.thread import run_in_thread
from replicator.policy.rule import Rule
from replicator.ports import MeetsAhead, State
from replicator.runs.bandwidth import follow
from replicator.runs.indexing import Indexer
from replicator.runs.wiring import Equipment, SitePool, build_engine, open_spool, site_names
from replicator.state.place import Claim


@dataclass(frozen=True)
class Wired:
    """The engine and the state of a command."""

    engine: Engine
    state: State


@contextlib.asynccontextmanager
async def wire(
    loaded: Loaded, rules: Sequence[Rule], watch: Watch, *, claim: Claim | None
) -> AsyncIterator[Wired]:
    """An engine for the rules, with their sites. No `claim`: without a spool, and the state is not written.

    Raises StateError.
    """
    read_only = claim is None
    async with contextlib.AsyncExitStack() as stack:
        pool = SitePool(watch.events, watch.clock)
        sites = await pool.take(loaded, site_names(rules))
        stack.push_async_callback(
            pool.give_back, sites
        )  # once more below: they are closed before the state is
        for name in {rule.source for rule in rules}:
            if isinstance(source := sites[name], MeetsAhead):
                source.meet_ahead()
        # The sources are asked while the state's library is imported, which takes a third of the start-up.
        store = await run_in_thread(_state_library)
        state = await store.open_state(
            loaded.agent.state, clock=watch.clock, read_only=read_only, claim=claim
        )
        stack.push_async_callback(state.aclose)
        if not read_only:
            watch.events.subscribe(Indexer(state), but=OF_EACH_REQUEST)
        spool = None
        if not read_only:
            is_shared = any(len(rule.destinations) > 1 for rule in rules)
            spool = open_spool(loaded, watch.events, stack, is_shared=is_shared)
        stack.push_async_callback(pool.give_back, sites)
        if loaded.bandwidth:
            following = asyncio.create_task(follow(lambda: (loaded.bandwidth, sites), watch.clock))
            stack.callback(following.cancel)
        if not gc.isenabled():  # as `cli.__main__.main` leaves it for the imports, all of which are done
            gc.freeze()  # they made ten times as many objects as a run does, and all of them stay
        yield Wired(build_engine(loaded, sites, Equipment(state, watch.events, watch.clock, spool)), state)


def _state_library() -> ModuleType:
    from replicator.state import store  # noqa: PLC0415 - see `wire`

    return store
