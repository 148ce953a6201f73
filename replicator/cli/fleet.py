"""`replicator fleet`."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Sequence

import click
import msgspec

from replicator.cli.options import Invocation, everywhere
from replicator.cli.output import print_json
from replicator.cli.rules import read_config
from replicator.cli.runner import run_async
from replicator.cli.watch import Watch
from replicator.config.settings import Loaded
from replicator.daemon.http.api.agents import infos
from replicator.daemon.http.api.shapes import AgentInfo
from replicator.errors import ConfigError
from replicator.fleet.roster import SKEW_SECONDS, Roster
from replicator.report import format_seconds, table
from replicator.state.place import PostgresPlace


@click.group("fleet", invoke_without_command=True)
@everywhere
@click.pass_context
def command(context: click.Context) -> int:
    """List the agents that share the rules: version, last heartbeat, destinations, and what each does.

    Asks the database of agent.state. The exit code is 1 if an agent has been silent for three heartbeats.
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
    found = await _roster(read_config(invocation, Watch.start(invocation, quiet=True)))
    agents = infos(found)
    if invocation.json:
        print_json({"version": 1, "agents": msgspec.to_builtins(agents)})
    else:
        for line in lines(agents, found.at):
            click.echo(line)
    return 1 if any(each.state == "lost" for each in agents) else 0


def lines(agents: Sequence[AgentInfo], now: float) -> list[str]:
    """The agents as text, as of `now` (epoch seconds)."""
    if not agents:
        return ["no agent: start one with [fleet] enabled = true and this agent.state"]
    rows = [
        ("AGENT", "VERSION", "HEARTBEAT", "SERVES", "STATE", "RUNNING"),
        *(_row(each, now) for each in agents),
    ]
    text = table(rows, right=frozenset({5}))
    for each in agents:
        if each.doing and each.state != "lost":  # what that one did is others' work now
            text += ["", f"{each.agent}, with {', '.join(each.sites)}:", *_doing(each, now)]
        if abs(each.clock_skew_seconds) > SKEW_SECONDS:
            text.append(f"{each.agent}: its clock is {each.clock_skew_seconds:+.0f} s off the database's")
    return text


def _row(agent: AgentInfo, now: float) -> tuple[str, ...]:
    return (
        agent.agent,
        agent.version,
        f"{_since(agent.last_heartbeat, now)} ago",
        "all" if agent.serves is None else ",".join(agent.serves),
        agent.state,
        "-" if agent.state == "lost" else str(len(agent.doing)),
    )


def _doing(agent: AgentInfo, now: float) -> list[str]:
    return table(
        [
            (
                f"  {run.rule}",
                f"-> {', '.join(run.destinations)}",
                ", ".join(run.repositories) or (f"shard {run.shard}" if run.shard else ""),
                _since(run.started_at, now),
            )
            for run in agent.doing
        ]
    )


def _since(at: dt.datetime, now: float) -> str:
    return format_seconds(max(0.0, now - at.timestamp()))


async def _roster(loaded: Loaded) -> Roster:
    from replicator.fleet.agents import roster  # noqa: PLC0415 - its libraries are an extra
    from replicator.fleet.times import Times  # noqa: PLC0415 - see above

    return await roster(_database(loaded), Times.of(loaded.fleet.heartbeat).dead, time.time)


async def _drain(invocation: Invocation, agent: str, *, undo: bool) -> int:
    from replicator.fleet.agents import set_draining  # noqa: PLC0415 - its libraries are an extra

    loaded = read_config(invocation, Watch.start(invocation, quiet=True))
    if not await set_draining(_database(loaded), agent, draining=not undo):
        known = ", ".join(each.name for each in (await _roster(loaded)).agents) or "none"
        raise ConfigError([f"unknown agent {agent!r}; the fleet has {known}"])
    click.echo(f"{agent}: {'takes work again' if undo else 'draining'}")
    return 0


def _database(loaded: Loaded) -> str:
    from replicator.state.postgres.connecting import conninfo  # noqa: PLC0415 - its libraries are an extra

    place = loaded.agent.state
    if not isinstance(place, PostgresPlace):
        raise ConfigError(['a fleet requires a state in PostgreSQL: set agent.state = "postgresql://..."'])
    return conninfo(place)
