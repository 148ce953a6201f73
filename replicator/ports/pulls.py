"""The pulls that a registry grants (Docker Hub's quota), where several agents share them."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import msgspec

from replicator.ports.power import Power


class PullWindow(msgspec.Struct, frozen=True):
    """`remaining` pulls of `limit` in `seconds`; None where a number was not told."""

    remaining: int
    limit: int | None = None
    seconds: int | None = None


class PullGrant(msgspec.Struct, frozen=True):
    """What an agent gets of the pulls that the fleet has left.

    Args:
        count: how many manifests it may read within `PULL_SECONDS`; 0: none, now.
        version: what `SharedPulls.tell` needs.
        window: what the fleet has left, those in the hands of agents included; None where the registry is to be asked.
        age: seconds since the registry was asked.
    """

    count: int
    version: int
    window: PullWindow | None = None
    age: float = 0.0


PULL_SECONDS = 15.0
"""How long a granted pull may be begun."""


class SharedPulls(Protocol):
    """The account that all agents of a fleet have of the pulls of each site."""

    async def reserve(self, site: str, *, used: int, told: int | None, keep: int) -> PullGrant:
        """Takes some of the pulls that are left, never so many that fewer than `keep` would be.

        Args:
            site: the site's name.
            used: granted pulls that were begun since the last call.
            told: what answers to them said is left, the least of it.
            keep: how many nobody may take.

        Raises:
            StateError: the database does not answer.
        """
        ...

    async def tell(self, site: str, window: PullWindow, version: int) -> None:
        """What the registry answered when it was asked, after the grant of this `version`. Raises StateError."""
        ...


@runtime_checkable
class SharesPulls(Protocol, metaclass=Power):
    """A site that may count pulls."""

    def share_pulls(self, pulls: SharedPulls) -> None:
        """From now on takes pulls from the fleet's account, as long as the database answers."""
        ...
