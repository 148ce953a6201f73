"""What is remembered between runs, and what remembers it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, Protocol

import msgspec

from replicator.model.digest import Digest
from replicator.ports.repository import Listed


class Belief(msgspec.Struct, frozen=True):
    """What we last put (or saw) under one tag of a destination, and for which rule.

    `recheck_at` (epoch seconds) is when the belief must be checked against the destination tag by tag.
    """

    tag: str
    digest: Digest
    rule: str
    recheck_at: float


class Pending(msgspec.Struct, frozen=True):
    """A tag that a destination lacks, and what became of it so far.

    `since` (epoch seconds) dates the change: its event's time, else the last complete look that still agreed.
    `error` is empty while nothing failed; `not_before` is when an unattended run may try again.
    """

    repository: str
    tag: str
    digest: Digest
    since: float
    attempts: int = 0
    error: str = ""
    reason: str = ""
    not_before: float = 0.0


class Placed(msgspec.Struct, frozen=True):
    """To record: a tag is in step at a destination. Ends what was pending for it."""

    rule: str
    destination: str
    belief: Belief
    repository: str


class Missing(msgspec.Struct, frozen=True):
    """To record: a tag is pending or failed again."""

    rule: str
    destination: str
    pending: Pending


class Unpending(msgspec.Struct, frozen=True):
    """To record: a tag is no longer wanted (gone at the source, or deselected)."""

    rule: str
    destination: str
    repository: str
    tag: str


class Seen(msgspec.Struct, frozen=True):
    """To record: a repository of a site was seen to have a blob."""

    site: str
    repository: str
    digest: Digest


class Created(msgspec.Struct, frozen=True):
    """To record: when the image of a digest was created (epoch seconds), by its own config."""

    digest: Digest
    at: float


class Noted(msgspec.Struct, frozen=True):
    """To record: what a listing said of a tag, so that it need not be read again while its version stays."""

    site: str
    repository: str
    listed: Listed


Entry = Placed | Missing | Unpending | Seen | Created | Noted


class Standing(msgspec.Struct, frozen=True):
    """Where one rule stands at one destination; times in epoch seconds, None for never.

    `first_seen`: when the rule was first run with this destination. `last_look`: the last complete look at the
    source. `last_success`: the end of the last run that left nothing pending. `oldest_pending`: the earliest
    `since` of what is pending now. `pending` counts the failed ones too.
    """

    rule: str
    destination: str
    first_seen: float
    last_look: float | None = None
    last_success: float | None = None
    in_step: int = 0
    held: int = 0
    pending: int = 0
    failed: int = 0
    oldest_pending: float | None = None
    last_error: str = ""

    @property
    def untried(self) -> int:
        """What is pending and has not failed: with `in_step`, `held` and `failed` it adds up to all there is."""
        return max(0, self.pending - self.failed)


class BehindRepository(msgspec.Struct, frozen=True):
    """A (target) repository of a destination that lacks tags of a rule. `pending` counts the failed ones too."""

    rule: str
    destination: str
    repository: str
    pending: int
    failed: int
    oldest_pending: float


class RunRow(msgspec.Struct, frozen=True):
    """One execution of one rule at one destination, as it ended."""

    rule: str
    destination: str
    started_at: float
    ended_at: float
    outcome: Literal["ok", "partial", "failed", "interrupted"]
    complete_look: bool
    in_step: int
    held: int
    failed: int
    error: str = ""
    narrowed: bool = False
    """Only what an event named was looked at: the counts are not those of the whole rule."""


class State(Protocol):
    """Durable memory: an accelerator, never the truth. A hint that is gone only costs requests."""

    async def beliefs(self, destination: str, repository: str) -> Mapping[str, Belief]:
        """What we believe of a destination's repository, by tag, whichever rule put it there."""
        ...

    async def pending(self, rule: str, destination: str, repository: str) -> Mapping[str, Pending]:
        """What is pending in one (target) repository, by tag."""
        ...

    async def pending_repositories(self, rule: str, destination: str) -> frozenset[str]:
        """The (target) repositories with something pending; maybe some more, where it has ended just now."""
        ...

    async def knows_repository(self, site: str, repository: str) -> bool:
        """Whether we ever recorded a blob or tag there."""
        ...

    async def whereabouts(self, site: str, digests: Iterable[Digest]) -> Mapping[Digest, Sequence[str]]:
        """Repositories of the site in which blobs were seen: a few per digest, latest first."""
        ...

    async def forget(self, site: str, repository: str, digests: Iterable[Digest]) -> None:
        """Takes back hints that proved wrong."""
        ...

    async def created(self, digests: Iterable[Digest]) -> Mapping[Digest, float]:
        """Creation times known."""
        ...

    async def listed(self, site: str, repository: str) -> Mapping[str, Listed]:
        """What listings said of a repository's tags, by tag."""
        ...

    def begin(self, rule: str, destination: str) -> None:
        """Notes that a rule runs with a destination (dates `first_seen`)."""
        ...

    def record(self, entry: Entry) -> None:
        """Takes an entry; it is durable after the next `flush` (soon, in batches). Never raises, never waits."""
        ...

    async def flush(self) -> None:
        """Makes durable what was recorded. Raises `StateError`."""
        ...

    async def close_run(self, row: RunRow) -> Standing:
        """Flushes, then closes a run's row; the last thing that is written of it."""
        ...

    async def standings(self, rules: Sequence[str] | None = None) -> Sequence[Standing]:
        """Where rules stand; all that the state knows where None."""
        ...

    async def aclose(self) -> None:
        """Flushes and closes."""
        ...
