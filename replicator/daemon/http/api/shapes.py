"""What the API takes and gives, from which its OpenAPI document is made.

Times are RFC 3339 in JSON; None is never or unknown.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from replicator.engine import Outcome, RunResult
from replicator.model.names import MAX_REPOSITORY_LENGTH, is_repository, is_tag

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
    """One rule at one destination. The lag is in seconds; `backing_off_until`: it failed often and waits.

    `running`: a run of the rule is under way and not through with this destination.
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


class RuleInfo(msgspec.Struct, frozen=True):
    """One rule as it is now."""

    rule: str
    source: str
    mirrors: list[str]
    schedule: str | None
    paused: bool
    next_run: dt.datetime | None
    running: list[str]
    """Ids of its runs under way."""
    destinations: list[RuleDestination]


class Rules(msgspec.Struct, frozen=True):
    """The rules that this agent runs, in the config's order."""

    rules: list[RuleInfo]


class RunProgress(msgspec.Struct, frozen=True):
    """One run at one destination, under way.

    `bytes_planned`: the most that the images read so far will move. `bytes_written`: from the source to the destination
    since the run began, by whichever rule; what is there already is not written.
    """

    destination: str
    done: bool
    tags_planned: int
    tags_done: int
    tags_failed: int
    bytes_planned: int
    bytes_written: int
    bytes_per_second: float


class RunInfo(msgspec.Struct, frozen=True):
    """One run of one rule. `repositories`: only these were looked at, else None. `outcome` is None under way."""

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
    """Of a run under way; else empty."""


class RunsList(msgspec.Struct, frozen=True):
    """Runs under way, in the order they began, then those that ended, the latest first."""

    runs: list[RunInfo]


class RunDetail(msgspec.Struct, frozen=True):
    """One run with its report, which is None while it is under way. Of very many actions some are left out."""

    run: RunInfo
    report: RunResult | None
    actions_left_out: int


class SiteInfo(msgspec.Struct, frozen=True):
    """One site that the rules name. `pulls_left`: what its quota still grants, where it told."""

    site: str
    url: str
    roles: list[Literal["source", "mirror", "destination"]]
    pulls_left: int | None


class Sites(msgspec.Struct, frozen=True):
    """The sites."""

    sites: list[SiteInfo]


class LagInfo(msgspec.Struct, frozen=True):
    """How far a destination may be behind, in seconds."""

    rule: str
    destination: str
    lag_seconds: float


class Lags(msgspec.Struct, frozen=True):
    """The lag of each rule at each destination that has been looked at."""

    lag: list[LagInfo]


class FlowInfo(msgspec.Struct, frozen=True):
    """What goes from one site to another. `mirror`: it only supplies content, so it has no lag of its own."""

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


class Status(msgspec.Struct, frozen=True):
    """All that the status page shows."""

    agent: str
    version: str
    started_at: dt.datetime
    problems: list[str]
    sites: list[SiteInfo]
    flows: list[FlowInfo]
    rules: list[RuleInfo]
    running: list[RunInfo]
    failures: list[FailureInfo]


class RuleSyncOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What of a rule to look at again: all of it where `repository` is left out, a whole repository where `tags` is.

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
    """What the types cannot say of tags without a repository."""

    def problem(self) -> str | None:
        """What the types cannot say."""
        if self.tags is not None and self.repository is None:
            return "tags need a repository"
        if self.repository is not None and not is_repository(self.repository):
            return "repository is no repository's name"
        if self.tags is not None and not all(map(is_tag, self.tags)):
            return "tags has what is no tag"
        return None


class SyncOrder(RuleSyncOrder, frozen=True, forbid_unknown_fields=True):
    """As `RuleSyncOrder`, for these rules, or for all where `rules` is left out."""

    rules: Names | None = None


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An empty object: nothing more needs to be said."""


class Wanted(msgspec.Struct, frozen=True):
    """A rule that runs as soon as may be, at these destinations."""

    rule: str
    destinations: list[str]


class Accepted(msgspec.Struct, frozen=True):
    """What was taken on. Whole runs of these rules that start at `at` or later include it.

    `passed_over`: rules that were not: paused, or they do not select the repository or have the destination.
    """

    at: dt.datetime
    rules: list[Wanted]
    passed_over: list[str]
