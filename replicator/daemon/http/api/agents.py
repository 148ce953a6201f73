"""The agents of a fleet in the shape of the API, for it, the page and `replicator fleet`. Pure."""

from __future__ import annotations

import datetime as dt

from replicator.daemon.http.api.shapes import AgentInfo, DoingInfo
from replicator.fleet.roster import Agent, Doing, Roster


def moment(at: float) -> dt.datetime:
    """An epoch time, to the millisecond."""
    return dt.datetime.fromtimestamp(round(at, 3), dt.UTC)


def infos(roster: Roster) -> list[AgentInfo]:
    """The agents, by name."""
    return [_info(roster, each) for each in roster.agents]


def _info(roster: Roster, agent: Agent) -> AgentInfo:
    return AgentInfo(
        agent=agent.name,
        version=agent.version,
        state=roster.state(agent),
        last_heartbeat=moment(roster.at - agent.silent),
        started_at=moment(roster.moment(agent, agent.started)),
        serves=None if agent.serves is None else list(agent.serves),
        sites=list(agent.sites),
        clock_skew_seconds=agent.clock_skew,
        doing=[_doing(roster, agent, each) for each in agent.doing],
    )


def _doing(roster: Roster, agent: Agent, doing: Doing) -> DoingInfo:
    return DoingInfo(
        rule=doing.rule,
        destinations=list(doing.destinations),
        shard=doing.shard or None,
        repositories=list(doing.repositories),
        cause=doing.cause,
        started_at=moment(roster.moment(agent, doing.since)),
        run=doing.id,
    )
