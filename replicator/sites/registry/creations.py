"""What is known of the repositories that a registry lacked."""

from __future__ import annotations

import msgspec

from replicator.errors import SiteError
from replicator.flow.once import Once
from replicator.sites.registry.vendors.creation import CreateSettings, Listing


class Creations(msgspec.Struct):
    """What became of the repositories that were missing at one registry. `wanted` None: none is created.

    `outcomes` are by unit: until which monotonic time one holds, and the failure if it was one. `listed`: what listings have shown.
    """

    wanted: CreateSettings | None = msgspec.field(default_factory=CreateSettings)
    in_progress: Once[str, None] = msgspec.field(default_factory=Once)
    outcomes: dict[str, tuple[float, SiteError | None]] = msgspec.field(default_factory=dict)
    listed: dict[str, Listing] = msgspec.field(default_factory=dict)

    def saw(self, repository: str, listing: Listing | None) -> None:
        """Notes what a listing of the repository has shown; None: that it has tags."""
        if listing is None:
            self.listed.pop(repository, None)
        else:
            self.listed[repository] = listing
