"""The result of a run. The structures are those of the report (docs/commands.md, "The report")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from replicator.errors import HoldKind, ReplicatorError, SiteError

Outcome = Literal["ok", "partial", "failed", "interrupted"]
ActionName = Literal["copy", "keep", "delete", "hold"]
DecisionName = Literal["copy", "in step", "postponed", "conflict", "held", "skipped"]
ActionOutcome = Literal["planned", "copied", "failed", "held", "kept", "deleted", "interrupted"]


CAUSES_NAMED: Final = 3
"""First causes that the end of a run names."""


class TagTotals(msgspec.Struct):
    """Tags by what became of them."""

    copied: int = 0
    unchanged: int = 0
    deleted: int = 0
    held: int = 0
    failed: int = 0


class BlobTotals(msgspec.Struct):
    """Blob transfers by outcome."""

    copied: int = 0
    mounted: int = 0
    present: int = 0
    failed: int = 0

    def count(self, outcome: Literal["copied", "mounted", "present", "failed"]) -> None:
        """Counts one more."""
        setattr(self, outcome, getattr(self, outcome) + 1)


class ByteTotals(msgspec.Struct):
    """Blob and manifest payload really moved, and payload that did not have to."""

    read: int = 0
    written: int = 0
    saved: int = 0


class Totals(msgspec.Struct):
    """Sums of a run, or of one destination of it.

    There `read` counts what was read for this destination alone, `requests` and `retries` what its part of the run
    caused at any site (see `engine.counted`).
    """

    tags: TagTotals = msgspec.field(default_factory=TagTotals)
    blobs: BlobTotals = msgspec.field(default_factory=BlobTotals)
    bytes: ByteTotals = msgspec.field(default_factory=ByteTotals)
    requests: int = 0
    retries: int = 0

    def add(self, other: Totals) -> None:
        """Adds another's blobs and bytes to these."""
        for mine, more in ((self.blobs, other.blobs), (self.bytes, other.bytes)):
            for field in mine.__struct_fields__:
                setattr(mine, field, getattr(mine, field) + getattr(more, field))


class Failure(msgspec.Struct, frozen=True):
    """One failure, with all that is needed to act on it."""

    site: str
    repository: str | None
    operation: str
    cause: str
    reason: str = "error"


class ActionResult(msgspec.Struct):
    """One action as it ended; `plan` gives the same with outcome "planned".

    `bytes` is what was written (in a plan: what would be sent). `tag` is None for a digest pinned without a tag.
    """

    action: ActionName
    repository: str
    target: str
    tag: str | None
    digest: str
    outcome: ActionOutcome
    reason: str | None = None
    bytes: int = 0
    seconds: float = 0.0
    blobs: BlobTotals | None = None
    """Only in a plan: how many blobs would be copied, mounted, are present."""
    hold: HoldKind | None = None
    """Only of a held tag: of what kind the reason is."""


class TagDecision(msgspec.Struct, frozen=True):
    """What a run decided on one tag at one destination, before anything was done.

    `tag` is the source's, `key` the target tag; a digest that is pinned without a tag has no `tag`, and is its own key.
    `reason` says what is different, or what keeps the tag from being copied; `hold`, of what kind a hold is.
    """

    rule: str
    destination: str
    repository: str
    tag: str | None
    target: str
    key: str
    digest: str
    decision: DecisionName
    reason: str
    hold: HoldKind | None = None


class FilterCount(msgspec.Struct, frozen=True):
    """How many tags of one source repository a filter took away ("include", "semver", "latest" ...)."""

    repository: str
    filter: str
    removed: int
    left: int


class DestinationResult(msgspec.Struct):
    """One rule at one destination. `actions` leaves out unchanged tags."""

    destination: str
    outcome: Outcome = "ok"
    totals: Totals = msgspec.field(default_factory=Totals)
    warnings: list[str] = msgspec.field(default_factory=list)
    failures: list[Failure] = msgspec.field(default_factory=list)
    actions: list[ActionResult] = msgspec.field(default_factory=list)


class RuleResult(msgspec.Struct):
    """One rule. `filters` is filled by `plan` only."""

    rule: str
    source: str
    destinations: list[DestinationResult]
    filters: list[FilterCount] | None = None


class RunResult(msgspec.Struct, kw_only=True):
    """The report."""

    version: int = 1
    started_at: str
    seconds: float
    outcome: Outcome
    totals: Totals
    rules: list[RuleResult]


def failure_of(error: ReplicatorError, repository: str | None, destination: str) -> Failure:
    """An error as it is reported; `repository` where the error names none."""
    if isinstance(error, SiteError):
        return Failure(error.site, error.repository or repository, error.operation, error.cause, error.reason)
    return Failure(destination, repository, "copy image", str(error), "internal")


def first_causes(failures: Sequence[Failure]) -> tuple[str, ...]:
    """The first few failures, a line each."""
    return tuple(_line(failure) for failure in failures[:CAUSES_NAMED])


def _line(failure: Failure) -> str:
    where = f"{failure.site}: {failure.repository}" if failure.repository else failure.site
    return f"{where}: {failure.operation}: {failure.cause}"


def last_cause(failures: Sequence[Failure]) -> str:
    """The last failure, in a line; "" without failures."""
    return _line(failures[-1]) if failures else ""
