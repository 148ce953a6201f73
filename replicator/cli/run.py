"""`replicator run`, the daemon."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import click

from replicator.cli.logs import log
from replicator.cli.options import Invocation, everywhere
from replicator.cli.rules import read_config, select_rules
from replicator.cli.runner import draining, run_async
from replicator.cli.watch import Watch
from replicator.config.load import load
from replicator.config.settings import Loaded
from replicator.daemon.app import App
from replicator.daemon.generation import Chosen
from replicator.daemon.http.server import bind, serve
from replicator.daemon.systemd import Systemd
from replicator.engine.context import DRAIN_SECONDS
from replicator.runs.hooks import HOOK_SECONDS
from replicator.runs.wiring import Equipment, open_spool
from replicator.state.locks import hold
from replicator.state.place import Claim, PostgresPlace
from replicator.state.store import open_state

if TYPE_CHECKING:  # its libraries are an extra
    from replicator.daemon.sharing.sharing import FleetPlace

STOP_SECONDS: Final = DRAIN_SECONDS + HOOK_SECONDS + 7.0
"""After a signal an agent ends within this time, also where a database or a thread does not answer. Service managers
kill it after 40 s.
"""


@click.command("run")
@everywhere
@click.pass_obj
def command(invocation: Invocation) -> int:
    """Keep the destinations of all rules up to date, until stopped.

    Serves metrics, health, webhooks, an API and a status page at agent.listen. SIGHUP reloads the config; an invalid
    config is rejected and changes nothing. SIGTERM and SIGINT stop gracefully: transfers in progress have 25 s to
    finish, then the exit code is 0. A second signal stops immediately; without one, what still hangs is ended after 37 s.
    """
    return run_async(_run(invocation))


async def _run(invocation: Invocation) -> int:
    watch = Watch.start(invocation, quiet=True)
    stop, reload = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, reload.set)
    loaded = read_config(invocation, watch)
    chosen = _chosen(loaded)

    def read() -> Chosen:
        return _chosen(load(invocation.config, os.environ))

    claim = Claim("fleet" if loaded.fleet.enabled else "agent", agent=loaded.agent.name)
    with hold(loaded.agent.state, claim):
        async with contextlib.AsyncExitStack() as stack:
            state = await open_state(loaded.agent.state, clock=watch.clock, claim=claim)
            stack.push_async_callback(state.aclose)
            spool = open_spool(loaded, watch.events, stack)
            equipment = Equipment(state, watch.events, watch.clock, spool)
            stack.enter_context(draining(stop.set, level=logging.INFO, limit=STOP_SECONDS))
            bound = await stack.enter_async_context(bind(loaded))
            app = await stack.enter_async_context(App.start(chosen, equipment, state, fleet=_fleet(loaded)))
            url = await stack.enter_async_context(serve(app, bound))
            log(logging.INFO, "listening", url=url, rules=len(chosen.rules))
            await _serve(app, read, reload=reload, stop=stop)
    log(logging.INFO, "stopped")
    return 0


def _chosen(loaded: Loaded) -> Chosen:
    """The rules of an agent; in a fleet all of them, since its jobs say which destinations each agent serves."""
    served = select_rules(loaded, (), ())
    return Chosen(loaded, loaded.rules if loaded.fleet.enabled else tuple(served))


def _fleet(loaded: Loaded) -> FleetPlace | None:
    """The agent's part in a fleet; None: it is alone."""
    place = loaded.agent.state
    if not loaded.fleet.enabled or not isinstance(place, PostgresPlace):
        return None
    from replicator.daemon.sharing.sharing import FleetPlace  # noqa: PLC0415 - its libraries are an extra
    from replicator.daemon.sharing.splitting import Much  # noqa: PLC0415 - see above
    from replicator.fleet.times import Times  # noqa: PLC0415 - see above
    from replicator.state.postgres.connecting import conninfo  # noqa: PLC0415 - see above

    serves = loaded.agent.serves
    return FleetPlace(
        lambda: conninfo(place),  # anew for each connection: the password may change
        loaded.fleet.shards,
        loaded.fleet.jobs,
        None if set(serves) == set(loaded.sites) else tuple(serves),
        Much(loaded.fleet.split_bytes),
        Times.of(loaded.fleet.heartbeat),
    )


async def _serve(app: App, read: Callable[[], Chosen], *, reload: asyncio.Event, stop: asyncio.Event) -> None:
    """Serves until drained, and notifies systemd."""
    systemd = Systemd(os.environ)
    systemd.ready(app.status())
    app.on_status = systemd.status
    async with asyncio.TaskGroup() as tasks:
        side = [
            tasks.create_task(_reload_when_told(app, read, systemd, reload)),
            tasks.create_task(systemd.keep_alive(app.health, app.clock)),
        ]
        await stop.wait()
        side[0].cancel()
        app.on_status = _ignored
        systemd.stopping("stopping: runs in progress have 25 s to finish")
        await app.drain()
        side[1].cancel()


def _ignored(_status: str) -> None:
    """Status changes while stopping are not shown."""


async def _reload_when_told(
    app: App, read: Callable[[], Chosen], systemd: Systemd, reload: asyncio.Event
) -> None:
    while True:
        await reload.wait()
        reload.clear()
        systemd.reloading()
        await app.reload(read)
        systemd.ready(app.status())
