"""The agent as its HTTP side, signals and systemd see it: what there is, where it stands, and what may be asked of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from replicator.config.build import Loaded
from replicator.daemon.runs import Runs
from replicator.daemon.triggers import Triggers
from replicator.events import Events
from replicator.metrics import Metrics
from replicator.policy.rule import Rule
from replicator.ports import Clock, Site, Standing


@dataclass(frozen=True, slots=True)
class RuleStatus:
    """One rule as it is now. `next_run` in epoch seconds, None where nothing is scheduled; `backing_off`:
    destinations that failed so often that they wait, with when they are tried again."""

    rule: Rule
    paused: bool
    next_run: float | None
    backing_off: Mapping[str, float]


class App(Protocol):
    """One agent. `config`, `rules` and `sites` change with a reload: read them anew for each request.

    The HTTP side is started by `run` with `replicator.daemon.http.server.listen(app)`, an async context manager that
    yields the URL it listens at.
    """

    events: Events
    clock: Clock
    metrics: Metrics
    triggers: Triggers
    runs: Runs
    started_at: float

    @property
    def config(self) -> Loaded:
        """The config in force: `agent` (name, listen), `http`, `hooks` by name, `rules`."""
        ...

    @property
    def rules(self) -> Sequence[RuleStatus]:
        """The rules that this agent runs, with the destinations that it serves, in the config's order."""
        ...

    @property
    def sites(self) -> Mapping[str, Site]:
        """The sites that these rules name."""
        ...

    def standings(self) -> Sequence[tuple[Standing, float]]:
        """Where each rule stands at each destination, with its lag in seconds now. Costs no I/O."""
        ...

    async def pause(self, rule: str) -> None:
        """Begins no run of the rule, also after a restart, until `resume`; what is under way goes on.

        Raises KeyError, StateError.
        """
        ...

    async def resume(self, rule: str) -> None:
        """Runs the rule again, at once where it is overdue. Raises KeyError, StateError."""
        ...

    def health(self) -> str | None:
        """None while the process is alive and scheduling; else what is wrong."""
        ...

    def ready(self) -> Sequence[str]:
        """What keeps the agent from replicating (config, state, scheduler); empty where nothing does."""
        ...
