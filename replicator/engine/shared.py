"""State that concurrent runs share: the content of each source, and what is known of each destination."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack

from replicator.engine.content.source import SourceContent
from replicator.engine.content.spool import Spool
from replicator.engine.queue import CopyQueue
from replicator.engine.referrers import ReferrersAPIs
from replicator.engine.transfer.blob import BlobTransfers
from replicator.engine.transfer.claims import ClaimedTransfers
from replicator.engine.transfer.graph import ImageWriter
from replicator.engine.transfer.presence import MAX_AGE_SECONDS, Presence
from replicator.engine.transfer.referrers import ReferrersLists
from replicator.events import Events, Warned
from replicator.ports import BlobClaims, Clock, Site, State


class Shared:
    """Runs share it while any of them is in progress; it ends with the last one.

    Args:
        sites: every site by name.
        state: the memory.
        events: told everything.
        clock: the time.
        spool: for sources that feed several destinations.
        apis: which sites list referrers.
        blob_claims: of the fleet; None where there is one agent.
    """

    def __init__(
        self,
        sites: Mapping[str, Site],
        state: State,
        events: Events,
        clock: Clock,
        spool: Spool | None,
        apis: ReferrersAPIs,
        blob_claims: BlobClaims | None = None,
    ) -> None:
        self._sites = sites
        self._state = state
        self._events = events
        self._clock = clock
        self._spool = spool
        self._apis = apis
        self._blob_claims = blob_claims
        self._refreshed = clock.monotonic()
        self._users = 0
        self._stack = AsyncExitStack()
        self._fed: defaultdict[str, set[str]] = defaultdict(set)
        self._contents: dict[str, SourceContent] = {}
        self._writers: dict[tuple[str, str], tuple[BlobTransfers, ImageWriter]] = {}
        self._presences: dict[str, Presence] = {}
        self._lists: dict[str, ReferrersLists] = {}
        self._queues: defaultdict[str, CopyQueue] = defaultdict(CopyQueue)
        self._listeners: defaultdict[str, list[Callable[[str], None]]] = defaultdict(list)

    def refresh(self) -> None:
        """Drops hints that are older than they may be; transfers in progress go on and are shared all the same."""
        now = self._clock.monotonic()
        if now - self._refreshed >= MAX_AGE_SECONDS:
            self._refreshed = now
            for content in self._contents.values():
                content.refresh()
            for transfers, _ in self._writers.values():
                transfers.refresh()

    def enter(self) -> None:
        """Counts a run in."""
        self._users += 1

    @property
    def is_last(self) -> bool:
        """Whether the generation ends with the next `leave`."""
        return self._users == 1

    async def leave(self) -> None:
        """Removes a run; with the last one, all work in progress ends."""
        self._users -= 1
        if self._users == 0:
            await self._stack.aclose()

    def feed(self, source: str, destination: str) -> None:
        """Notes that a source feeds a destination: where it feeds several, blobs go through the spool."""
        self._fed[source].add(destination)

    def content(self, source: str) -> SourceContent:
        """The content of a source."""
        if source not in self._contents:
            self._contents[source] = SourceContent(
                self._sites,
                source,
                spool=self._spool,
                share=lambda: len(self._fed[source]) > 1,
                events=self._events,
                warn=lambda text: self._warn(source, text),
                apis=self._apis,
            )
        return self._contents[source]

    def writers(self, source: str, destination: str) -> tuple[BlobTransfers, ImageWriter]:
        """What writes from a source to a destination."""
        key = (source, destination)
        if key not in self._writers:
            presence = self._presences.setdefault(destination, Presence(self._clock))
            transfers = BlobTransfers(
                self._sites[destination],
                source=source,
                presence=presence,
                state=self._state,
                events=self._events,
                claimed=self._claimed(destination),
            )
            if destination not in self._lists:
                self._lists[destination] = lists = ReferrersLists(
                    self._apis, self._clock, lambda text: self._events.emit(Warned(destination, text))
                )
                self._stack.push_async_callback(lists.aclose)
            lists = self._lists[destination]
            writer = ImageWriter(transfers, presence, lists)
            self._writers[key] = (transfers, writer)
        return self._writers[key]

    def _claimed(self, destination: str) -> ClaimedTransfers | None:
        claims = self._blob_claims
        if claims is None:
            return None
        return ClaimedTransfers(
            destination, claims, state=self._state, events=self._events, clock=self._clock
        )

    def queue(self, destination: str) -> CopyQueue:
        """The queue of copies to a destination."""
        return self._queues[destination]

    def listen(self, source: str, tell: Callable[[str], None]) -> Callable[[], None]:
        """Tells `tell` the warnings about a source's content until the function returned is called."""
        listeners = self._listeners[source]
        listeners.append(tell)
        return lambda: listeners.remove(tell)

    def _warn(self, source: str, text: str) -> None:
        self._events.emit(Warned(source, text))
        for tell in self._listeners[source]:
            tell(text)
