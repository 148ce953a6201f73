"""One blob to one destination, when other agents of a fleet may bring it there too."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from replicator.errors import StateError
from replicator.events import DuplicateBytes, Events
from replicator.model.descriptor import Descriptor
from replicator.ports import BlobClaims, BlobOutcome, Clock, State

CLAIMED_BLOB_BYTES: Final = 1024 * 1024
"""Smaller ones are sent sooner than the others are asked."""
FIRST_LOOK_SECONDS: Final = 0.5
LOOK_SECONDS: Final = 5.0
WAIT_SECONDS: Final = 300.0
"""After that an agent brings a blob itself, whatever the other one does."""

Transfer = Callable[[], Awaitable[BlobOutcome]]


def is_claimed(blob: Descriptor) -> bool:
    """Whether a blob is large enough for a claim."""
    return (blob.size or 0) >= CLAIMED_BLOB_BYTES


class ClaimedTransfers:
    """Transfers to one site, each claimed.

    Args:
        site: the destination's name.
        claims: of the fleet.
        state: tells the other agents where a blob lies.
        events: gets `DuplicateBytes`.
        clock: the time.
    """

    def __init__(self, site: str, claims: BlobClaims, *, state: State, events: Events, clock: Clock) -> None:
        self._site = site
        self._claims = claims
        self._state = state
        self._events = events
        self._clock = clock

    async def run(self, blob: Descriptor, transfer: Transfer, transfer_after: Transfer) -> BlobOutcome:
        """Transfers the blob, and raises what that raises.

        Args:
            blob: what moves; see `is_claimed`.
            transfer: moves it.
            transfer_after: looks first whether another agent, which had claimed it, has brought it.
        """
        waited, wait, work = 0.0, FIRST_LOOK_SECONDS, transfer
        while True:
            async with self._claims.claim(self._site, blob.digest) as is_ours:
                if is_ours:
                    return await self._tell(await work())
            if waited >= WAIT_SECONDS:
                break
            await self._clock.sleep(wait)
            waited, wait, work = waited + wait, min(2 * wait, LOOK_SECONDS), transfer_after
        outcome = await transfer_after()
        if outcome == "copied":
            self._events.emit(DuplicateBytes(self._site, blob.size or 0))
        return outcome

    async def _tell(self, outcome: BlobOutcome) -> BlobOutcome:
        """Makes sure, before the claim ends, that the others find in the state where the blob lies."""
        if outcome == "copied":
            with suppress(StateError):  # whatever the run does next raises it, too
                await self._state.flush()
        return outcome
