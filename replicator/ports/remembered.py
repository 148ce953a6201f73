"""What is remembered between runs.

Times are epoch seconds. A time that lies ahead of now by more than `policy.recheck.CLOCK_SLACK_SECONDS` was written
while a clock ran ahead: whoever reads it ignores it, as if it had never been written.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import msgspec

from replicator.model.digest import Digest
from replicator.model.shards import Shard
from replicator.ports.repository import Listed, ListingRefused
from replicator.ports.search import ImageSeen


class TagBelief(msgspec.Struct, frozen=True, gc=False):
    """What a destination's tag names, as last written or seen there, and for which rule.

    A digest that is pinned without a tag has its own text as `tag`. `digest` is the root at the destination,
    `source_digest` what the source tag named then: the base of a later comparison, different from `digest` where
    platforms were left out. `rule` owns the tag. `checked_at`: when the destination last confirmed it.
    `asked_at`: when the source was asked for the answer that this rests on. `companions`: the state of the root's companion
    tags at the source then (`model.companion.state_of_companions`).
    """

    tag: str
    digest: Digest
    source_digest: Digest
    rule: str
    checked_at: float
    asked_at: float = 0.0
    companions: str = ""


class Placement(msgspec.Struct, frozen=True, gc=False):
    """One root digest in one repository of one destination, with everything it leads to.

    `fingerprint` is over what was put: children, referrers, the choice of platforms. `verified_at`: when all of it
    was last found there.
    """

    digest: Digest
    fingerprint: str
    written_at: float
    verified_at: float


class Pending(msgspec.Struct, frozen=True):
    """A tag that a destination lacks, and what became of it so far.

    `repository` and `tag` are those of the destination, `source` is the source repository. `digest` is what the
    source tag names; None: the source could not say, which makes the tag pending all the same.
    `since` dates the change: its event's time, else the last complete scan that still agreed.
    `error` is empty while nothing failed; `not_before` is when an unattended run may try again.
    `asked_at`: when the source was asked. With `hold`, the tag is held instead, for that reason, of the
    kind that `reason` names: it stays as it is on purpose, and counts nowhere as pending.
    """

    repository: str
    tag: str
    digest: Digest | None
    since: float
    attempts: int = 0
    error: str = ""
    reason: str = ""
    not_before: float = 0.0
    source: str = ""
    asked_at: float = 0.0
    hold: str = ""


class Unit(msgspec.Struct, frozen=True):
    """Where one source repository of a rule stands at one destination.

    `repository` is the source's, `target` the destination's. `source_complete_at`: the start of the last complete
    listing of the source repository; `destination_complete_at`: of the target; None for never (in a record: not
    this time, what is known stays). `unknown` counts selected tags that the destination could not be asked about.
    `asked_at`: when the source was asked. What is pending is counted from `Pending`.
    """

    rule: str
    destination: str
    repository: str
    target: str
    source_complete_at: float | None = None
    destination_complete_at: float | None = None
    in_step: int = 0
    held: int = 0
    unknown: int = 0
    error: str = ""
    asked_at: float = 0.0


class AcceptedEvent(msgspec.Struct, frozen=True):
    """Something changed at a source, says a webhook or the API; kept until a scan has answered it.

    `id` is chosen by whoever accepts it. No `repository`: anything at the site; no `tag`: any tag of the repository.
    `at` is when it happened, `accepted_at` when we were told.
    """

    id: str
    site: str
    repository: str | None
    tag: str | None
    digest: Digest | None
    at: float
    accepted_at: float


# --- entries to record ---


class Placed(msgspec.Struct, frozen=True):
    """To record: a tag is in step at a destination. Ends what was pending for it.

    `placement` is given where the root was written, or its closure found whole, with it. A belief with an
    earlier `asked_at` than the one that is known changes nothing.
    """

    rule: str
    destination: str
    belief: TagBelief
    repository: str
    placement: Placement | None = None


class GoneAtDestination(msgspec.Struct, frozen=True):
    """To record: a complete listing of a destination's repository, begun at `seen_at`, lacked tags we believed in.

    Their beliefs end, unless checked since, and so do placements that no belief names any more.
    """

    destination: str
    repository: str
    tags: Collection[str]
    seen_at: float


class Missing(msgspec.Struct, frozen=True):
    """To record: a tag is pending, failed again, or is held. Nothing where the source was asked later for what is known."""

    rule: str
    destination: str
    pending: Pending


class Unpending(msgspec.Struct, frozen=True):
    """To record: a tag is no longer wanted (gone at the source, or deselected), the source having been asked then."""

    rule: str
    destination: str
    repository: str
    tag: str
    asked_at: float = 0.0


class UnitSeen(msgspec.Struct, frozen=True):
    """To record: a source repository was scanned for a destination. Nothing where it has been asked later since.

    `counted`: the unit's counts are those of all its tags; else what is known stays.
    """

    unit: Unit
    counted: bool = True


class CatalogSeen(msgspec.Struct, frozen=True):
    """To record: the rule's source was asked for its repositories at `at`, and answered completely.

    `repositories` are those that the rule selects. Units of others end, and so does what is pending from them,
    unless the source was asked for them since. Not `is_looked_at`: a shard's run tells it, which has looked at some of
    them only; its `RunRow` dates the look.
    """

    rule: str
    destination: str
    repositories: frozenset[str]
    at: float
    is_looked_at: bool = True


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


class Unlisted(msgspec.Struct, frozen=True):
    """To record: a complete listing no longer had these tags."""

    site: str
    repository: str
    tags: Collection[str]


Entry = (
    Placed
    | ImageSeen
    | GoneAtDestination
    | Missing
    | Unpending
    | UnitSeen
    | CatalogSeen
    | Seen
    | Created
    | Noted
    | Unlisted
    | ListingRefused
)


class Standing(msgspec.Struct, frozen=True):
    """Where one rule stands at one destination; None for never.

    `first_seen`: when the rule was first run with this destination. `last_look`: since when everything has been
    scanned completely at least once, both sides; `look_repository` names the source repository that holds it back.
    `last_success`: the end of the last run that left nothing pending. `oldest_pending`: the earliest
    `since` of what is pending now, which is `oldest_tag` in the destination's repository `oldest_repository`.
    `pending` counts the failed ones too.
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
    unknown: int = 0
    oldest_repository: str = ""
    oldest_tag: str = ""
    look_repository: str = ""

    @property
    def untried(self) -> int:
        """What is pending and has not failed: with `in_step`, `held`, `failed` and `unknown` it adds up to all there is."""
        return max(0, self.pending - self.failed)


class BehindRepository(msgspec.Struct, frozen=True):
    """A repository of a destination that lacks tags of a rule. `pending` counts the failed ones too.

    `oldest_pending` is the `since` of `oldest_tag`, the tag that has been pending longest.
    """

    rule: str
    destination: str
    repository: str
    pending: int
    failed: int
    oldest_pending: float
    oldest_tag: str = ""


class RunRow(msgspec.Struct, frozen=True):
    """One execution of one rule at one destination, as it ended.

    `narrowed`: only what an event named was looked at, so the counts are not those of the whole rule. `shard`: only this
    part was; the rule was looked at when all its parts were. Its `catalog_at`: when the source was asked for its
    repositories and answered completely, None where it did not.
    """

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
    shard: Shard | None = None
    catalog_at: float | None = None
