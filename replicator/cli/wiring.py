"""Builds state, spool, sites and engine for a one-shot run, and closes them in order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from replicator.cli.watch import Watch
from replicator.config.settings import Loaded
from replicator.flow.thread import run_in_thread
from replicator.policy.rule import Rule
from replicator.ports import ConnectsAhead, MeetsAhead, State
from replicator.runs.bandwidth import follow
from replicator.runs.indexing import INDEXED, Indexer
from replicator.runs.wiring import Equipment, SitePool, build_engine, open_spool, site_names
from replicator.state.place import Claim

if TYPE_CHECKING:
    from replicator.engine.engine import Engine


class Wired(msgspec.Struct, frozen=True):
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
        for name in {name for rule in rules for name in rule.destinations}:
            if isinstance(destination := sites[name], ConnectsAhead):
                destination.connect_ahead()  # they are asked when the first source has answered
        # The sources are asked while the rest is imported, which takes half of the start-up.
        await run_in_thread(_import_the_rest)
        from replicator.state.store import open_state  # noqa: PLC0415 - see above

        state = await open_state(loaded.agent.state, clock=watch.clock, read_only=read_only, claim=claim)
        stack.push_async_callback(state.aclose)
        if not read_only:
            watch.events.subscribe(Indexer(state), to=INDEXED)
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


def _import_the_rest() -> None:
    """Imports what only answers are needed for: the engine, and the state with its library."""
    import replicator.engine.engine  # noqa: PLC0415 - see `wire`
    import replicator.state.store  # noqa: F401, PLC0415
