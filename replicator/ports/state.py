"""What remembers between runs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

from replicator.model.digest import Digest
from replicator.ports.remembered import (
    AcceptedEvent,
    BehindRepository,
    Entry,
    Pending,
    Placement,
    RunRow,
    Standing,
    TagBelief,
    Unit,
)
from replicator.ports.repository import Listed, ListingRefused


class State(Protocol):
    """Durable memory: an accelerator, never the truth. A hint that is gone only costs requests."""

    async def beliefs(
        self, destination: str, repository: str, tags: Collection[str] | None = None
    ) -> Mapping[str, TagBelief]:
        """What we believe of a destination's repository, by tag, whichever rule put it there.

        With `tags`, of those alone, at a cost that does not depend on how many others there are.
        """
        ...

    async def pending(
        self, rule: str, destination: str, repository: str, tags: Collection[str] | None = None
    ) -> Mapping[str, Pending]:
        """What is pending or held in one repository of the destination, by tag; `tags` as in `beliefs`."""
        ...

    async def placements(
        self, destination: str, repository: str, digests: Collection[Digest] | None = None
    ) -> Mapping[Digest, Placement]:
        """The placements in a destination's repository, by digest; with `digests`, of those alone.

        One whose last belief has just ended may still be among them.
        """
        ...

    async def units(
        self, rule: str, destination: str | None = None, repositories: Collection[str] | None = None
    ) -> Sequence[Unit]:
        """Where the source repositories of a rule stand, by destination and repository; with `repositories`, these alone."""
        ...

    async def accept_events(
        self, events: Iterable[AcceptedEvent], *, instead_of: Collection[str] = ()
    ) -> None:
        """Keeps events until they are answered; durable on return. Raises `StateError`.

        Of two about one tag the later is kept (answering the id of the earlier changes nothing then), with the
        earlier `at`. With `instead_of`, events of these ids are dropped in the same step: how many become one.
        """
        ...

    async def answer_events(self, ids: Collection[str]) -> None:
        """Drops events that a scan has answered; durable on return. Unknown ids are ignored. Raises `StateError`."""
        ...

    async def events(self) -> Sequence[AcceptedEvent]:
        """The events that are not answered yet, first accepted first."""
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

    async def listing_refusals(self, site: str, repository: str) -> Sequence[ListingRefused]:
        """The latest refusal to list this repository in bulk and the latest for all of the site, however long ago."""
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

    async def behind(self) -> Sequence[BehindRepository]:
        """Every repository with tags pending, of whatever rule."""
        ...

    async def aclose(self) -> None:
        """Flushes and closes."""
        ...
