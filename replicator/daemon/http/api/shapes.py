"""Bodies of the API's requests and answers. The OpenAPI document is generated from them.

Times are RFC 3339 in JSON; None means never or unknown.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from replicator.engine.result import Outcome, RunResult
from replicator.fleet.roster import AgentState
from replicator.model.names import MAX_REPOSITORY_LENGTH, is_repository, is_tag
from replicator.runs.ledger import TransferProgress
from replicator.runs.progress import DestinationProgress, ScanProgress, WaitProgress

Name = Annotated[str, Meta(min_length=1, max_length=64)]
Names = Annotated[list[Name], Meta(min_length=1, max_length=1000)]
# As `model.names` has them; JSON Schema needs the patterns, which `problem` checks to the last character.
_WORDS = "[a-z0-9]+((\\.|_|__|-+)[a-z0-9]+)*"
RepositoryName = Annotated[
    str, Meta(min_length=1, max_length=MAX_REPOSITORY_LENGTH, pattern=f"^{_WORDS}(/{_WORDS})*$")
]
TagName = Annotated[str, Meta(min_length=1, max_length=128, pattern="^[a-zA-Z0-9_][a-zA-Z0-9._-]*$")]


class Tags(msgspec.Struct, frozen=True):
    """Selected tags by where they stand: each is counted once.

    `pending`: not tried yet; `failed`: tried in vain; `unknown`: the destination could not be asked.
    """

    in_step: int
    held: int
    pending: int
    failed: int
    unknown: int = 0


class RuleDestination(msgspec.Struct, frozen=True):
    """One rule at one destination. The lag is in seconds; `backing_off_until`: waiting after repeated failures.

    `running`: a run of the rule is in progress and has not finished with this destination.
    """

    destination: str
    running: bool
    lag_seconds: float | None
    last_success: dt.datetime | None
    last_look: dt.datetime | None
    tags: Tags | None
    last_error: str | None
    backing_off_until: dt.datetime | None
    oldest_pending: str | None = None
    """The tag that holds the lag, as `repository:tag`."""
    untrusted: int = 0
    """Tags that are held because their images are not trusted."""
    untrusted_reason: str | None = None
    """One of them, as `repository:tag`, and why."""


class RuleInfo(msgspec.Struct, frozen=True):
    """One rule as it is now."""

    rule: str
    source: str
    mirrors: list[str]
    schedule: str | None
    paused: bool
    next_run: dt.datetime | None
    running: list[str]
    """Ids of its runs in progress."""
    destinations: list[RuleDestination]
    latest: RunInfo | None = None
    """In a fleet, the run of the whole rule that is in progress, else the last that ended; null if it is not known any more."""


class Rules(msgspec.Struct, frozen=True):
    """The rules that this agent runs, in the config's order."""

    rules: list[RuleInfo]


class RunProgress(msgspec.Struct, frozen=True):
    """Progress of a run at one destination.

    Tags are the rule's. Bytes, rate and time left are the destination's, as in `DestinationProgress`: what several rules
    need moves once. `scanned` of `found` repositories of the source; more may be found while `is_listed` is false.
    `unlisted` of those scanned could not be listed. `tags_postponed` failed before and are not tried again yet.
    """

    destination: str
    done: bool
    tags_planned: int
    tags_done: int
    tags_failed: int
    bytes_planned: int
    bytes_moved: int
    bytes_per_second: float
    seconds_left: float | None
    scan: ScanProgress | None
    tags_postponed: int = 0


class ShardsInfo(msgspec.Struct, frozen=True):
    """The parts of a run that agents of a fleet divide among them: how many, and how many have ended."""

    count: int
    ended: int


class RunInfo(msgspec.Struct, frozen=True):
    """One run of one rule. `repositories`: only these were scanned; None: all. `outcome` is None while it is in progress.

    In a fleet, a run of a whole rule has `shards`, and `agents` are those that did them. While it is in progress, there is one
    run more, with `shard`, for each shard that an agent works on; it is part of the former, and is not listed once it has ended.
    """

    id: str
    rule: str
    source: str
    destinations: list[str]
    cause: str
    repositories: list[str] | None
    started_at: dt.datetime
    ended_at: dt.datetime | None
    outcome: Outcome | None
    error: str | None
    progress: list[RunProgress]
    """Of a run in progress at the agent that is asked; else empty."""
    agents: list[str] = []
    """Who does it, or did it."""
    shard: str | None = None
    """Which part of a run of the whole rule this is, as `3/64`."""
    shards: ShardsInfo | None = None


class RunsList(msgspec.Struct, frozen=True):
    """Runs in progress, in the order they began, then those that ended, the latest first."""

    runs: list[RunInfo]


class RunDetail(msgspec.Struct, frozen=True):
    """One run with its report, which is None while the run is in progress. Very long lists of actions are truncated."""

    run: RunInfo
    report: RunResult | None
    actions_left_out: int


class SiteInfo(msgspec.Struct, frozen=True):
    """One site of the rules. `pulls_left`: what remains of its pull quota, if it says so."""

    site: str
    url: str
    roles: list[Literal["source", "mirror", "destination"]]
    pulls_left: int | None


class Sites(msgspec.Struct, frozen=True):
    """The sites."""

    sites: list[SiteInfo]


class LagInfo(msgspec.Struct, frozen=True):
    """How far a destination is behind, in seconds."""

    rule: str
    destination: str
    lag_seconds: float


class Lags(msgspec.Struct, frozen=True):
    """The lag of each rule at each destination that has been scanned."""

    lag: list[LagInfo]


class FlowInfo(msgspec.Struct, frozen=True):
    """Replication from one site to another. `mirror`: the source only supplies content, so it has no lag of its own."""

    source: str
    destination: str
    mirror: bool
    rules: list[str]
    lag_seconds: float | None
    bytes_per_second: float
    state: Literal["ok", "behind", "failing", "paused", "new"]


class FailureInfo(msgspec.Struct, frozen=True):
    """One recent failure."""

    at: dt.datetime
    rule: str
    destination: str
    site: str
    repository: str | None
    operation: str
    cause: str


class DoingInfo(msgspec.Struct, frozen=True):
    """One run in progress at an agent of the fleet.

    `shard`: which part of the rule's repositories, as `3/64`. `repositories`: some of those that it is narrowed to; empty:
    all of the shard.
    """

    rule: str
    destinations: list[str]
    shard: str | None
    repositories: list[str]
    cause: str
    started_at: dt.datetime
    run: str
    """Its id."""


class AgentInfo(msgspec.Struct, frozen=True):
    """One agent of the fleet, as it said with its last heartbeat.

    `serves`: the destinations of its `agent.serves`, null: all. `sites`: those that it works with now. `state`: `lost` if it
    has been silent for too long, so that others do its work; `unknown` while the database is away. `clock_skew_seconds`: how
    far its clock is ahead of the database's. Times are by the clock of the agent that is asked.
    """

    agent: str
    version: str
    state: AgentState
    last_heartbeat: dt.datetime
    started_at: dt.datetime
    serves: list[str] | None
    sites: list[str]
    clock_skew_seconds: float
    doing: list[DoingInfo]


class Agents(msgspec.Struct, frozen=True):
    """The agents of the fleet, by name; empty if the agent is not part of one."""

    agents: list[AgentInfo]


class Status(msgspec.Struct, frozen=True):
    """Everything that the status page shows.

    `moving`: the destinations of runs in progress. `transfers`: the largest ones in progress. `waits`: the sites that
    have requests wait. `agents`: of the fleet; empty if the agent is not part of one.
    """

    agent: str
    version: str
    started_at: dt.datetime
    problems: list[str]
    sites: list[SiteInfo]
    flows: list[FlowInfo]
    rules: list[RuleInfo]
    running: list[RunInfo]
    moving: list[DestinationProgress]
    transfers: list[TransferProgress]
    waits: list[WaitProgress]
    failures: list[FailureInfo]
    agents: list[AgentInfo] = []


class RuleSyncOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to scan of a rule: everything without `repository`, a whole repository without `tags`.

    `destinations` narrows it; `recheck` asks the destinations tag by tag.
    """

    repository: RepositoryName | None = None
    tags: Annotated[list[TagName], Meta(min_length=1, max_length=1000)] | None = None
    destinations: Names | None = None
    recheck: bool = False

    MORE_SCHEMA: ClassVar[Mapping[str, Any]] = {
        "if": {"required": ["tags"], "properties": {"tags": {"type": "array"}}},
        "then": {"required": ["repository"], "properties": {"repository": {"type": "string"}}},
    }
    """What the types cannot express: tags need a repository."""

    def problem(self) -> str | None:
        """What is wrong with the order beyond its types; None if nothing is."""
        if self.tags is not None and self.repository is None:
            return "tags requires repository"
        if self.repository is not None and not is_repository(self.repository):
            return "repository is not a valid repository name"
        if self.tags is not None and not all(map(is_tag, self.tags)):
            return "tags contains an invalid tag"
        return None


class SyncOrder(RuleSyncOrder, frozen=True, forbid_unknown_fields=True):
    """As `RuleSyncOrder`, for these rules; for all without `rules`."""

    rules: Names | None = None


class WhyOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be explained, from what the sites answer now; `at` only at this destination."""

    reference: Annotated[str, Meta(min_length=1, max_length=1000)]
    at: str | None = None


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An empty object."""


class Wanted(msgspec.Struct, frozen=True):
    """A rule that runs as soon as possible, at these destinations."""

    rule: str
    destinations: list[str]


class Accepted(msgspec.Struct, frozen=True):
    """What was accepted. Whole runs of these rules that start at `at` or later include it.

    `skipped`: rules that are paused, do not select the repository or do not have the destination.
    """

    at: dt.datetime
    rules: list[Wanted]
    skipped: list[str]
