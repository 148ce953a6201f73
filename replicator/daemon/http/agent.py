"""What the HTTP side needs of the agent. `daemon.app.App` provides it; tests have a small one of their own.

Everything here is read for each request, because a reload may change it. Only the address and the paths of the
certificate are fixed when listening starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from replicator.config.settings import Loaded
from replicator.daemon.runs import Runs
from replicator.daemon.status import RuleStatus
from replicator.daemon.triggers import Triggers
from replicator.engine.result import RunResult
from replicator.events import Events
from replicator.fleet.history import FleetRuns
from replicator.fleet.roster import Roster
from replicator.metrics import Metrics
from replicator.ports import Clock, Standing, State
from replicator.ports.search import ImageIndex
from replicator.runs.why import Answer


class FleetHistory(Protocol):
    """Runs of the fleet. See `daemon.sharing.history.RunHistory`."""

    def __call__(self) -> FleetRuns: ...  # noqa: D102

    async def report(self, run_id: str) -> RunResult | None: ...  # noqa: D102


class Shared(Protocol):
    """What all agents of a fleet know. See `daemon.sharing.sharing.Sharing`."""

    @property
    def roster(self) -> Roster: ...  # noqa: D102
    @property
    def history(self) -> FleetHistory: ...  # noqa: D102


class Agent(Protocol):
    """The agent. See `daemon.app.App`."""

    @property
    def events(self) -> Events: ...  # noqa: D102
    @property
    def clock(self) -> Clock: ...  # noqa: D102
    @property
    def metrics(self) -> Metrics: ...  # noqa: D102
    @property
    def triggers(self) -> Triggers: ...  # noqa: D102
    @property
    def state(self) -> State: ...  # noqa: D102
    @property
    def runs(self) -> Runs: ...  # noqa: D102
    @property
    def started_at(self) -> float: ...  # noqa: D102
    @property
    def config(self) -> Loaded: ...  # noqa: D102
    @property
    def rules(self) -> Sequence[RuleStatus]: ...  # noqa: D102
    @property
    def index(self) -> ImageIndex: ...  # noqa: D102
    @property
    def sharing(self) -> Shared | None: ...  # noqa: D102
    @property
    def problems(self) -> Sequence[str]: ...  # noqa: D102

    def standings(self) -> Sequence[tuple[Standing, float]]: ...  # noqa: D102

    async def why(self, reference: str, at: str | None, *, fresh: bool) -> Answer: ...  # noqa: D102

    async def pause(self, rule: str) -> None: ...  # noqa: D102

    async def resume(self, rule: str) -> None: ...  # noqa: D102

    def health(self) -> str | None: ...  # noqa: D102

    def ready(self) -> Sequence[str]: ...  # noqa: D102
