"""What the engine asks of a fleet: several agents that share a state. One agent alone has none of it."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import msgspec

from replicator.model.digest import Digest
from replicator.model.shards import Shard


class Ownership(Protocol):
    """The right of a run to write to the repositories of its shard, which another agent may have taken over."""

    async def confirm(self) -> None:
        """Asked right before anything is written that another agent may write too.

        Raises:
            OwnershipLostError: it is not certain any more. The run writes nothing from then on.
        """
        ...


class ToCopy(msgspec.Struct, frozen=True):
    """How much a repository of a destination lacks, as far as is known.

    `sources`: the repositories at the source that lead to it. `tags`: how many are to be copied, and (`image_bytes`) how
    large the image of one of them is, 0 while that is not known.
    """

    sources: Collection[str]
    tags: int
    image_bytes: int = 0


class SplitsOff(Protocol):
    """Repositories of a shard that are work of their own; the shard's run writes nothing to them."""

    def is_left(self, destination: str, repository: str) -> bool:
        """Whether a repository of the destination is."""
        ...

    def is_left_everywhere(self, repository: str) -> bool:
        """Whether it is at all destinations of the run."""
        ...

    async def weigh(self, destination: str, repository: str, found: ToCopy) -> bool:
        """Asked before anything is copied to a repository, again for each of its tags: whether it is split off.

        Once the size of an image was told and the answer was no, it stays no.

        Raises:
            OwnershipLostError: the run may write nothing more.
            StateError: the database did not answer.
        """
        ...


class Assignment(msgspec.Struct, frozen=True):
    """What one run of a fleet has to do of its rules.

    It looks at and writes only what leads to repositories of the `shard`, as long as its `ownership` can be confirmed.
    `tick` names the moment at which all shards of a rule were due: in one process they share one listing of the source's
    repositories. None: the run lists them itself. `splits`: the repositories that are left to others; None: none is.
    """

    shard: Shard
    ownership: Ownership
    tick: Hashable = None
    splits: SplitsOff | None = None


class BlobClaims(Protocol):
    """Which blobs agents are bringing to destinations, so that they do not bring the same one at the same time."""

    def claim(self, destination: str, digest: Digest) -> AbstractAsyncContextManager[bool]:
        """Entered at once with True where nobody else brings the blob there now, with False where somebody does.

        Also True where it cannot be told. Never raises.
        """
        ...
