"""`replicator why`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Awaitable

import click
import msgspec

from replicator.cli.names import complete_destination, complete_reference
from replicator.cli.options import Invocation, everywhere
from replicator.cli.output import print_json
from replicator.cli.remote import remote_option, remote_why
from replicator.cli.rules import served_rules
from replicator.cli.runner import run_async
from replicator.cli.watch import Watch
from replicator.config.load import load
from replicator.config.settings import Loaded
from replicator.engine.engine import Engine
from replicator.errors import ConfigError
from replicator.events import Events
from replicator.ports import State
from replicator.runs.why import Answer, Asked, Asker, exit_code, parse_asked, render_answer
from replicator.runs.wiring import Equipment, SitePool, build_engine, site_names
from replicator.state.store import open_state


@click.command("why")
@click.argument("reference", shell_complete=complete_reference)
@click.option("--at", metavar="SITE", help="Only this destination.", shell_complete=complete_destination)
@click.option("--fresh", is_flag=True, help="Ask the sites now, as plan does, instead of the state alone.")
@remote_option
@everywhere
@click.pass_obj
def command(
    invocation: Invocation, reference: str, at: str | None, remote: str | None, *, fresh: bool
) -> int:
    """Explain why an image is, or is not, at its destinations.

    REFERENCE is [SITE/]REPOSITORY[:TAG], as at the source or at a destination; the site is its name in the config or the
    host of its URL. Or a digest. Shows each step that a run takes, with its verdict, what the next run will do, and what
    would have to change. Nothing is changed.

    Exit code 0 if the image is in step, 3 if it is known why not, else 1.
    """
    if remote is not None:
        answer = remote_why(invocation, remote, reference, at, fresh=fresh)
        return run_async(_show(invocation, answer))
    return run_async(_show(invocation, _why(invocation, reference, at, fresh=fresh)))


async def _show(invocation: Invocation, answering: Awaitable[Answer]) -> int:
    answer = await answering
    if invocation.json:
        print_json({"version": 1, **msgspec.to_builtins(answer)})
    else:
        click.echo("\n".join(render_answer(answer)))
    for problem in answer.problems:
        click.echo(f"error: {problem}", err=True)
    return exit_code(answer.verdict)


async def _why(invocation: Invocation, reference: str, at: str | None, *, fresh: bool) -> Answer:
    watch = Watch.start(invocation, quiet=True)
    loaded = load(invocation.config, os.environ)
    asked = _parsed(loaded, reference, at)
    state = await open_state(loaded.agent.state, clock=watch.clock, read_only=True)
    try:
        asker = Asker(served_rules(loaded), loaded.rules, state, state, watch.clock.now)
        if not fresh:
            return await asker.answer(asked, at)
        async with _engine(loaded, watch, state) as engine:
            return await asker.answer(asked, at, engine)
    finally:
        await state.aclose()


def _parsed(loaded: Loaded, reference: str, at: str | None) -> Asked:
    """What is asked about. Raises ConfigError for a malformed reference or an unknown site."""
    if at is not None and at not in loaded.sites:
        raise ConfigError([f"--at {at}: unknown site; the config has {', '.join(sorted(loaded.sites))}"])
    try:
        return parse_asked(reference, {name: each.url for name, each in loaded.sites.items()})
    except ValueError as error:
        raise ConfigError([str(error)]) from None


@contextlib.asynccontextmanager
async def _engine(loaded: Loaded, watch: Watch, state: State) -> AsyncIterator[Engine]:
    pool = SitePool(watch.events, watch.clock)
    sites = await pool.take(loaded, site_names(served_rules(loaded)))
    try:
        # Failures are part of the answer, so they are not reported a second time.
        yield build_engine(loaded, sites, Equipment(state, Events(), watch.clock, None))
    finally:
        await pool.give_back(sites)
