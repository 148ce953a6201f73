"""What happens, as frozen data. Metrics, logs and progress subscribe; the state does not depend on them.

`Events.emit` is synchronous and never raises. Sites are told apart by name; sizes are bytes, times seconds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import Literal

import msgspec

from replicator.events.agent import (
    ConfigRead,
    DatabaseSeen,
    FleetSeen,
    JobBegun,
    RunStuck,
    SplitOff,
    TakenOver,
    WebhookSeen,
)
from replicator.model.digest import Digest
from replicator.model.manifest import Manifest
from replicator.model.shards import Shard
from replicator.scrub import scrub

_log = logging.getLogger(__name__)


class RequestDone(msgspec.Struct, frozen=True):
    """One request to a site ended. `code` is the HTTP status, or a word ("timeout", "reset") where none came."""

    site: str
    operation: str
    code: str
    seconds: float


class RetryPlanned(msgspec.Struct, frozen=True):
    """Something is going to be tried again after `wait` seconds."""

    site: str
    operation: str
    reason: str
    wait: float


class BytesRead(msgspec.Struct, frozen=True):
    """Payload came in from a source."""

    source: str
    count: int


class BytesWritten(msgspec.Struct, frozen=True):
    """Payload went out to a destination: of this blob or manifest, for this repository. `position`: how far it is now."""

    source: str
    destination: str
    count: int
    repository: str = ""
    digest: str = ""
    position: int = 0


class BytesSaved(msgspec.Struct, frozen=True):
    """Payload that did not have to move."""

    destination: str
    reason: Literal["present", "mounted", "shared_read", "server_side"]
    count: int


class DuplicateBytes(msgspec.Struct, frozen=True):
    """A blob was sent to a destination although another agent of the fleet was sending it there, too."""

    destination: str
    count: int


class Reread(msgspec.Struct, frozen=True):
    """More of a blob was read from its source than it has: some of it moved again."""

    source: str
    digest: str


class BlobDone(msgspec.Struct, frozen=True):
    """One blob's transfer to one destination ended."""

    source: str
    destination: str
    repository: str
    digest: str
    outcome: Literal["copied", "mounted", "present", "failed"]
    size: int


class TagPlanned(msgspec.Struct, frozen=True):
    """A tag is going to be copied, held or given up: one `TagDone` follows, unless the run ends early or leaves it to others."""

    rule: str
    destination: str


class TagPostponed(msgspec.Struct, frozen=True):
    """A tag that failed before is not tried again yet: it counts as failed."""

    rule: str
    destination: str


class ImagePrepared(msgspec.Struct, frozen=True):
    """What an image consists of is known, each digest with its size; for progress. `repository` and `tag` as in `TagDone`.

    `mounts`: as far as is known, a blob that one repository of the destination has need not move for another.
    """

    rule: str
    destination: str
    repository: str
    tag: str
    blobs: tuple[tuple[str, int], ...]
    manifests: tuple[tuple[str, int], ...] = ()
    mounts: bool = True


class ScanMoved(msgspec.Struct, frozen=True):
    """A scan of a rule's source goes on: `scanned` of `found` repositories; more may be found unless `is_listed`.

    `unlisted`: how many of those scanned could not be listed, in whole or in part. `is_over`: it has ended, whatever it found.
    """

    rule: str
    source: str
    scanned: int
    found: int
    is_listed: bool
    is_over: bool = False
    unlisted: int = 0


class TurnAwaited(msgspec.Struct, frozen=True):
    """A request begins (+1) or ceases (-1) to wait until the site takes more requests."""

    site: str
    change: int


class TagDone(msgspec.Struct, frozen=True):
    """A tag's action ended."""

    rule: str
    destination: str
    repository: str
    tag: str
    action: Literal["copy", "keep", "delete", "hold"]
    outcome: str
    delay: float | None = None


class TagUntrusted(msgspec.Struct, frozen=True):
    """A tag is held because its image is not trusted.

    `repository` and `tag` are those of the source (no `tag`: a digest that is pinned without one), `target` and `key` as
    `repository` and `tag` in `TagDone`. `reason` says what is missing.
    """

    rule: str
    destination: str
    repository: str
    tag: str | None
    target: str
    key: str
    digest: str
    reason: str


class Observed(msgspec.Struct, frozen=True):
    """A complete look at a rule's source ended at this time (epoch seconds)."""

    rule: str
    at: float


class TagSeen(msgspec.Struct, frozen=True):
    """A scan that an event asked for is through, at one destination, with a tag that the event named.

    The tag is in step there, or nothing that may pass by itself keeps it from being so.

    `digest` None: there was no need to ask, since the rule does not select the tag, or it is immutable and every
    destination has it; or (`is_absent`) the source does not have the tag.
    """

    rule: str
    source: str
    repository: str
    tag: str
    digest: str | None
    destination: str = ""
    is_absent: bool = False


class RepositoryScanned(msgspec.Struct, frozen=True):
    """A scan that an event asked for has decided, at one destination, on every tag of a source repository."""

    rule: str
    source: str
    repository: str
    destination: str


class RunStarted(msgspec.Struct, frozen=True):
    """A rule's run began. `repositories` of the source where it looks only at some, None where at all of the rule's."""

    rule: str
    source: str
    destinations: tuple[str, ...]
    repositories: tuple[str, ...] | None = None


class RunEnded(msgspec.Struct, frozen=True):
    """A rule's run ended at one destination.

    Tag counts are of this run's catalog; `repositories` as in `RunStarted`; `causes` are the first failures, one line
    each. `untrusted` are all tags that are held there because their images are not trusted, as `repository:tag`; None
    where the run did not see all. `shard`: it looked at this part only, and so `untrusted` are all of this part.
    """

    rule: str
    destination: str
    outcome: Literal["ok", "partial", "failed", "interrupted"]
    seconds: float
    in_step: int
    pending: int
    held: int
    failed: int
    copied: int = 0
    repositories: tuple[str, ...] | None = None
    causes: tuple[str, ...] = ()
    untrusted: frozenset[str] | None = None
    shard: Shard | None = None

    def forgets(self, tag: str) -> bool:
        """Whether a tag (`repository:tag`) that was held for lack of trust is so no more."""
        if self.untrusted is None or tag in self.untrusted:
            return False
        return self.shard is None or self.shard.has(tag.partition(":")[0])


class ConfigPassed(msgspec.Struct, frozen=True):
    """The config of an image was copied; its content, verified."""

    digest: Digest
    body: bytes


class ImageCopied(msgspec.Struct, frozen=True):
    """An image is whole at a destination: its root's digest, and all its manifests."""

    root: Digest
    manifests: tuple[Manifest, ...]


class Failed(msgspec.Struct, frozen=True):
    """Something failed for good in this run."""

    rule: str
    destination: str
    site: str
    repository: str | None
    operation: str
    reason: str
    cause: str


class Warned(msgspec.Struct, frozen=True):
    """A warning for the operator. The text may quote the other side, so it is scrubbed."""

    site: str | None
    text: str

    def __post_init__(self) -> None:
        """Scrubs the text."""
        msgspec.structs.force_setattr(self, "text", scrub(self.text, 2_000))


class CredentialsRenewed(msgspec.Struct, frozen=True):
    """Credentials with an end were asked for. `expires_at` (epoch seconds): of those that serve from now on."""

    site: str
    outcome: Literal["ok", "failed"]
    expires_at: float


class LimitChanged(msgspec.Struct, frozen=True):
    """A gate's width changed."""

    site: str
    kind: str
    limit: int


class InFlight(msgspec.Struct, frozen=True):
    """A slot of a gate was taken (+1) or given back (-1)."""

    site: str
    kind: str
    change: int


class QuotaSeen(msgspec.Struct, frozen=True):
    """A site told how many pulls it still grants."""

    site: str
    remaining: int


Event = (
    RequestDone
    | RetryPlanned
    | BytesRead
    | BytesWritten
    | BytesSaved
    | DuplicateBytes
    | Reread
    | BlobDone
    | TagPlanned
    | TagPostponed
    | ImagePrepared
    | ScanMoved
    | TurnAwaited
    | TagDone
    | TagUntrusted
    | Observed
    | TagSeen
    | RepositoryScanned
    | RunStarted
    | RunEnded
    | RunStuck
    | TakenOver
    | JobBegun
    | SplitOff
    | DatabaseSeen
    | FleetSeen
    | ConfigPassed
    | ImageCopied
    | Failed
    | Warned
    | CredentialsRenewed
    | LimitChanged
    | ConfigRead
    | InFlight
    | QuotaSeen
    | WebhookSeen
)


class Events:
    """The one place events go through."""

    def __init__(self) -> None:
        self._subscribers: list[tuple[Callable[[Event], None], Collection[type] | None]] = []
        self._told: dict[type, tuple[Callable[[Event], None], ...]] = {}
        """Who is told, by kind of event; filled as events come."""

    def subscribe(self, subscriber: Callable[[Event], None], *, to: Collection[type] | None = None) -> None:
        """Calls `subscriber` with each event of these kinds from now on (None: all), in order, on the emitting task.

        A small image makes 40 events, half of them of its requests: most subscribers have a use for few of them.
        """
        self._subscribers.append((subscriber, to))
        self._told = {}

    def unsubscribe(self, subscriber: Callable[[Event], None]) -> None:
        """Calls `subscriber` no more."""
        self._subscribers = [(one, kinds) for one, kinds in self._subscribers if one != subscriber]
        self._told = {}

    def emit(self, event: Event) -> None:
        """Tells everybody. A subscriber that raises is logged and does not disturb the others."""
        kind = type(event)
        told = self._told.get(kind)
        if told is None:
            told = self._told[kind] = tuple(
                one for one, kinds in self._subscribers if kinds is None or kind in kinds
            )
        for subscriber in told:
            try:
                subscriber(event)
            except Exception:  # noqa: BLE001 - a broken display must not break replication
                _log.exception("an event subscriber failed")
