"""Artifact Registry and gcr.io: an access token of Google Cloud is the password of `oauth2accesstoken`.

Sources: Artifact Registry, "Set up authentication for Docker"; "Using OAuth 2.0 for Server to Server Applications";
Compute Engine, "About VM metadata"; IAM Credentials API `generateAccessToken`.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import jwt

from replicator.errors import AuthFailed, ConfigError, Unavailable
from replicator.ports import Clock
from replicator.scrub import remember
from replicator.sites.registry.credentials import Credentials
from replicator.sites.registry.identity.exchange import ask, seconds_of, text_of
from replicator.sites.registry.identity.settings import GoogleIdentity
from replicator.sites.registry.identity.source import STEP, Issued, NoIdentity

USERNAME: Final = "oauth2accesstoken"
_SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
_GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
IMPERSONATION: Final = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts"
_METADATA_HOST: Final = "metadata.google.internal"
_LIFETIME_SECONDS: Final = 3600.0
_MAX_KEY_BYTES: Final = 256 * 1024
_NEEDS: Final = "a service account that is not disabled, with roles/artifactregistry.reader (writer to write)"


class GoogleIssuer:
    """Access tokens, good for an hour.

    Args:
        site: name of the site, for messages.
        identity: as configured.
        clock: time.
        environ: where the variables of Google's libraries are looked up.
        impersonation: base URL of the accounts of the IAM Credentials API.
    """

    def __init__(
        self,
        site: str,
        identity: GoogleIdentity,
        clock: Clock,
        environ: Mapping[str, str] | None = None,
        impersonation: str = IMPERSONATION,
    ) -> None:
        self._site = site
        self._identity = identity
        self._clock = clock
        self._environ = os.environ if environ is None else environ
        self._impersonation = impersonation
        self._owner = ""

    async def issue(self) -> Issued:
        """See `Issuer`."""
        token, lifetime, self._owner = await self._token()
        if self._identity.impersonate is not None:
            remember(token)
            token, lifetime = await self._impersonated(token, self._identity.impersonate)
            self._owner = f"{self._identity.impersonate}, impersonated by {self._owner}"
        return Issued(Credentials(USERNAME, token), lifetime)

    async def owner(self) -> str:
        """See `Issuer`."""
        return self._owner

    async def _token(self) -> tuple[str, float, str]:
        file = self._identity.key_file
        if file is None and (named := self._environ.get("GOOGLE_APPLICATION_CREDENTIALS")):
            file = Path(named)
        if file is None:
            return await self._of_machine()
        key = await asyncio.to_thread(_read_key, file)
        if key.get("type") == "service_account":
            return await self._of_account(file, key)
        return await _by_library(self._site, file, key)

    async def _of_account(self, file: Path, key: Mapping[str, Any]) -> tuple[str, float, str]:
        email, url, private = key.get("client_email"), key.get("token_uri"), key.get("private_key")
        if not (isinstance(email, str) and isinstance(url, str) and isinstance(private, str)):
            raise ConfigError(
                [f"{file}: lacks client_email, private_key or token_uri; expected a service account's key"]
            )
        now = int(self._clock.now())
        claims = {"iss": email, "scope": _SCOPE, "aud": url, "iat": now, "exp": now + int(_LIFETIME_SECONDS)}
        try:
            signed = await asyncio.to_thread(
                jwt.encode, claims, private, "RS256", {"kid": key.get("private_key_id")}
            )
        except (ValueError, TypeError, jwt.PyJWTError):
            raise ConfigError([f"{file}: private_key is not a PEM key"]) from None
        remember(signed)
        answer = await ask(self._site, url, form={"grant_type": _GRANT, "assertion": signed}, needs=_NEEDS)
        token = text_of(self._site, answer, "access_token", url)
        return token, seconds_of(answer, "expires_in", _LIFETIME_SECONDS), email

    async def _of_machine(self) -> tuple[str, float, str]:
        host = self._environ.get("GCE_METADATA_HOST") or _METADATA_HOST
        url = f"http://{host}/computeMetadata/v1/instance/service-accounts/default/token"
        headers = {"Metadata-Flavor": "Google"}
        try:
            answer = await ask(self._site, url, headers=headers, needs=_NEEDS, is_local=True)
        except Unavailable as error:
            if error.answered:
                raise
            raise NoIdentity(
                "no Google identity: GOOGLE_APPLICATION_CREDENTIALS is not set, and this machine has no metadata server"
                f' ({error.cause}); set auth = {{ kind = "google", key_file = "PATH" }}'
            ) from None
        token = text_of(self._site, answer, "access_token", url)
        return token, seconds_of(answer, "expires_in", _LIFETIME_SECONDS), "the machine's service account"

    async def _impersonated(self, token: str, account: str) -> tuple[str, float]:
        url = f"{self._impersonation}/{quote(account, safe='@')}:generateAccessToken"
        answer = await ask(
            self._site,
            url,
            document={"scope": [_SCOPE], "lifetime": f"{_LIFETIME_SECONDS:.0f}s"},
            headers={"Authorization": f"Bearer {token}"},
            needs=f"roles/iam.serviceAccountTokenCreator on {account}",
        )
        end = text_of(self._site, answer, "expireTime", url)
        try:
            left = datetime.fromisoformat(end).timestamp() - self._clock.now()
        except ValueError:
            left = _LIFETIME_SECONDS
        return text_of(self._site, answer, "accessToken", url), seconds_of({"left": left}, "left", 60.0)


def _read_key(file: Path) -> Mapping[str, Any]:
    try:
        with file.open("rb") as opened:
            document: Any = json.loads(opened.read(_MAX_KEY_BYTES))
    except OSError as error:
        raise ConfigError([f"{file}: {error.strerror}; expected a credential file of Google Cloud"]) from None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise ConfigError([f"{file}: not a JSON object; expected a credential file of Google Cloud"])
    if isinstance(private := document.get("private_key"), str):
        remember(private)
    return document


async def _by_library(site: str, file: Path, key: Mapping[str, Any]) -> tuple[str, float, str]:
    """A token by the extra `google`, for every other type of credentials."""
    kind = str(key.get("type"))
    try:
        from replicator.sites.registry.identity.federation import fetch_token  # noqa: PLC0415 - needs the extra
    except ImportError:
        cause = f"{file} holds credentials of type {kind!r}, which need google-auth: pip install 'replicator[google]'"
        raise AuthFailed(site, STEP.operation, cause) from None
    token = await asyncio.to_thread(fetch_token, site, file, key, _SCOPE)
    return token, _LIFETIME_SECONDS, f"{kind} of {file}"
