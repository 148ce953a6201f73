"""GHCR by a GitHub App: an installation's access token is a password, good for an hour.

Source: GitHub Docs, "Authenticating as a GitHub App installation".
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Final
from urllib.parse import quote

import jwt

from replicator.errors import ConfigError
from replicator.ports import Clock
from replicator.scrub import remember
from replicator.sites.registry.credentials import Credentials
from replicator.sites.registry.identity.exchange import ask, seconds_of, text_of
from replicator.sites.registry.identity.settings import GitHubIdentity
from replicator.sites.registry.identity.source import Issued

USERNAME: Final = "x-access-token"
_LIFETIME_SECONDS: Final = 3600.0
_JWT_SECONDS: Final = 540
"""GitHub allows ten minutes."""
_DRIFT_SECONDS: Final = 60
"""GitHub's advice against clocks that are apart."""


class GitHubIssuer:
    """Access tokens of one installation."""

    def __init__(self, site: str, identity: GitHubIdentity, clock: Clock) -> None:
        self._site = site
        self._identity = identity
        self._clock = clock

    async def issue(self) -> Issued:
        """See `Issuer`."""
        identity = self._identity
        now = int(self._clock.now())
        claims = {"iat": now - _DRIFT_SECONDS, "exp": now + _JWT_SECONDS, "iss": identity.app_id}
        try:
            signed = await asyncio.to_thread(jwt.encode, claims, identity.private_key(), "RS256")
        except (ValueError, TypeError, jwt.PyJWTError):
            raise ConfigError(
                [f"site.{self._site}.auth.private_key: not a PEM key of a GitHub App"]
            ) from None
        remember(signed)
        url = f"{identity.api.rstrip('/')}/app/installations/{quote(identity.installation_id, safe='')}/access_tokens"
        answer = await ask(
            self._site,
            url,
            document={},
            headers={"Authorization": f"Bearer {signed}", "X-GitHub-Api-Version": "2022-11-28"},
            needs="an App that is installed, with the permission packages: read (write to write)",
        )
        try:
            left = datetime.fromisoformat(str(answer.get("expires_at"))).timestamp() - self._clock.now()
        except ValueError:
            left = _LIFETIME_SECONDS
        token = text_of(self._site, answer, "token", url)
        return Issued(Credentials(USERNAME, token), seconds_of({"left": left}, "left", 60.0))

    async def owner(self) -> str:
        """See `Issuer`."""
        return f"installation {self._identity.installation_id} of GitHub App {self._identity.app_id}"
