"""Claims of blobs for engines that are built before the agent has joined its fleet."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from replicator.model.digest import Digest
from replicator.ports import BlobClaims


class LateClaims:
    """A `ports.BlobClaims`: those of the `fleet`, once there is one; until then nobody else brings anything."""

    fleet: BlobClaims | None = None

    @contextlib.asynccontextmanager
    async def claim(self, destination: str, digest: Digest) -> AsyncIterator[bool]:
        """See `ports.BlobClaims`."""
        if self.fleet is None:
            yield True
            return
        async with self.fleet.claim(destination, digest) as mine:
            yield mine
