"""Puts together what runs rules: state, spool, sites, engine; and takes it apart in order."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from replicator.cli.places import open_sites
from replicator.cli.watch import Watch
from replicator.config.build import Loaded
from replicator.daemon.bandwidth import follow
from replicator.engine import Engine, Spool
from replicator.errors import ReplicatorError
from replicator.events import Warned
from replicator.policy.rule import Rule
from replicator.ports import State
from replicator.state.store import open_state


@dataclass(frozen=True)
class Wired:
    """What runs rules."""

    engine: Engine
    state: State


@contextlib.asynccontextmanager
async def wire(
    loaded: Loaded, rules: Sequence[Rule], watch: Watch, *, read_only: bool
) -> AsyncIterator[Wired]:
    """An engine for the rules, with the sites they name. `read_only`: for looking only; no spool, state not written.

    Raises StateError.
    """
    names = {site for rule in rules for site in (rule.source, *rule.mirrors, *rule.destinations)}
    async with contextlib.AsyncExitStack() as stack:
        state = await open_state(loaded.agent.state_path, clock=watch.clock, read_only=read_only)
        stack.push_async_callback(state.aclose)
        spool = None
        if not read_only and any(len(rule.destinations) > 1 for rule in rules):
            spool = open_spool(loaded, watch, stack)
        settings = [loaded.sites[name] for name in sorted(names)]
        sites = await stack.enter_async_context(open_sites(settings, watch))
        if loaded.bandwidth:
            following = asyncio.create_task(follow(lambda: (loaded.bandwidth, sites), watch.clock))
            stack.callback(following.cancel)
        engine = Engine(
            sites=sites,
            state=state,
            events=watch.events,
            clock=watch.clock,
            spool=spool,
            rules=loaded.rules,
        )
        yield Wired(engine, state)


def open_spool(loaded: Loaded, watch: Watch, stack: contextlib.AsyncExitStack) -> Spool | None:
    """The spool, closed with the stack. None where it cannot be had: blobs stream through, which is said."""
    try:
        spool = Spool(loaded.agent.cache_path, loaded.agent.cache_max_bytes)
    except ReplicatorError as error:
        watch.events.emit(Warned(None, f"{error}; blobs are read once for each destination"))
        return None
    stack.push_async_callback(spool.aclose)
    return spool
