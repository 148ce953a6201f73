"""What issues credentials, as `renewed.RenewedLogins` sees it."""

from __future__ import annotations

from typing import Final, Protocol

import msgspec

from replicator.sites.registry.credentials import Credentials
from replicator.sites.registry.errormap import Step

STEP: Final = Step("get credentials")


class NoIdentity(Exception):
    """Nobody here has an identity to ask with: no keys, no role, no metadata server. `str` says where it was looked."""


class Issued(msgspec.Struct, frozen=True):
    """Credentials, and the seconds that they live from when they were asked for."""

    credentials: Credentials
    lifetime: float


class Issuer(Protocol):
    """A cloud that issues credentials for one registry."""

    async def issue(self) -> Issued:
        """New credentials.

        Raises:
            NoIdentity: there is nothing to ask with.
            AuthFailed: the cloud refuses; the cause names the right that is needed.
            Unavailable: no answer, or a failure that passes.
            ConfigError: a file or secret that the config names cannot be read.
        """
        ...

    async def owner(self) -> str:
        """Whose the credentials issued last are, for `check`; may ask the cloud. Raises no `SiteError`."""
        ...
