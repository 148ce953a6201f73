"""`replicator fleet`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
import msgspec

from replicator.cli.options import Invocation, everywhere
from replicator.cli.output import print_json
from replicator.cli.rules import read_config
from replicator.cli.runner import run_async
from replicator.cli.watch import Watch
from replicator.config.settings import Loaded
from replicator.errors import ConfigError
from replicator.report import format_seconds, table
from replicator.state.place import PostgresPlace

if TYPE_CHECKING:  # its libraries are an extra
    from replicator.fleet.agents import Agent


@click.group("fleet", invoke_without_command=True)
@everywhere
@click.pass_context
def command(context: click.Context) -> int:
    """List the agents that share the rules: version, last heartbeat, destinations, and what each does.

    Asks the database of agent.state. The exit code is 1 if an agent has not been heard of for four heartbeats.
    """
    if context.invoked_subcommand is not None:
        return 0
    invocation = context.find_object(Invocation)
    return run_async(_list(invocation or Invocation()))


@command.command("drain")
@click.argument("agent")
@click.option("--undo", is_flag=True, help="Let the agent take work again.")
@everywhere
@click.pass_obj
def drain_command(invocation: Invocation, agent: str, *, undo: bool) -> int:
    """Have an agent finish what it does and leave the rest to the others.

    It keeps serving its page, API and webhooks. It takes work again after --undo, or when it is restarted.
    """
    return run_async(_drain(invocation, agent, undo=undo))


async def _list(invocation: Invocation) -> int:
    from replicator.fleet.agents import listed  # noqa: PLC0415 - its libraries are an extra
    from replicator.fleet.times import Times  # noqa: PLC0415 - see above

    loaded = read_config(invocation, Watch.start(invocation, quiet=True))
    agents = await listed(_database(loaded))
    dead = {each.name for each in agents if each.silent > Times.of(loaded.fleet.heartbeat).dead}
    if invocation.json:
        plain = [{**msgspec.to_builtins(each), "alive": each.name not in dead} for each in agents]
        print_json({"version": 1, "agents": plain})
    else:
        for line in _lines(agents, dead):
            click.echo(line)
    return 1 if dead else 0


def _lines(agents: Sequence[Agent], dead: set[str]) -> list[str]:
    if not agents:
        return ["no agent: start one with [fleet] enabled = true and this agent.state"]
    rows = [("AGENT", "VERSION", "HEARTBEAT", "SERVES", "STATE", "RUNNING")]
    for each in agents:
        state = "lost" if each.name in dead else "draining" if each.draining else "working"
        rows.append(
            (
                each.name,
                each.version,
                f"{format_seconds(each.silent)} ago",
                "all" if each.serves is None else ",".join(each.serves),
                state,
                str(len(each.doing)),
            )
        )
    lines = table(rows, right=frozenset({5}))
    now = time.time()
    for each in agents:
        if each.name in dead:
            continue  # what it did is others' work now
        if each.doing:
            lines += ["", f"{each.name}, with {', '.join(each.sites)}:"]
        lines += table(
            [
                (
                    f"  {run.rule}",
                    f"-> {', '.join(run.destinations)}",
                    f"shard {run.shard}" if run.shard else "",
                    format_seconds(max(0.0, now - run.since)),
                )
                for run in each.doing
            ]
        )
        if abs(each.clock_skew) > 5:
            lines.append(f"{each.name}: its clock is {each.clock_skew:+.0f} s off the database's")
    return lines


async def _drain(invocation: Invocation, agent: str, *, undo: bool) -> int:
    from replicator.fleet.agents import listed, set_draining  # noqa: PLC0415 - its libraries are an extra

    dsn = _database(read_config(invocation, Watch.start(invocation, quiet=True)))
    if not await set_draining(dsn, agent, draining=not undo):
        known = ", ".join(each.name for each in await listed(dsn)) or "none"
        raise ConfigError([f"unknown agent {agent!r}; the fleet has {known}"])
    click.echo(f"{agent}: {'takes work again' if undo else 'draining'}")
    return 0


def _database(loaded: Loaded) -> str:
    from replicator.state.postgres.connecting import conninfo  # noqa: PLC0415 - its libraries are an extra

    place = loaded.agent.state
    if not isinstance(place, PostgresPlace):
        raise ConfigError(['a fleet requires a state in PostgreSQL: set agent.state = "postgresql://..."'])
    return conninfo(place)
