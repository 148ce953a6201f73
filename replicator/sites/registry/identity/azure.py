"""Azure Container Registry: a token of Microsoft Entra ID becomes a refresh token of the registry.

Sources: https://github.com/Azure/acr/blob/main/docs/AAD-OAuth.md; Microsoft identity platform, client credentials and
workload identity; managed identities, "How to use the token".
"""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from replicator.errors import AuthFailed, ConfigError, SiteError, Unavailable
from replicator.ports import Clock
from replicator.scrub import remember
from replicator.sites.registry.credentials import Credentials
from replicator.sites.registry.identity.exchange import ask, seconds_of, text_of
from replicator.sites.registry.identity.settings import AcrIdentity
from replicator.sites.registry.identity.source import STEP, Issued, NoIdentity

USERNAME: Final = "00000000-0000-0000-0000-000000000000"
"""The user name that goes with a refresh token where a password is asked for."""
RESOURCE: Final = "https://containerregistry.azure.net"
_REFRESH_SECONDS: Final = 3 * 3600.0
_AUTHORITIES: Final = {
    ".azurecr.cn": "https://login.chinacloudapi.cn",
    ".azurecr.us": "https://login.microsoftonline.us",
}
_PUBLIC_AUTHORITY: Final = "https://login.microsoftonline.com"
_METADATA: Final = "http://169.254.169.254"
_NEEDS: Final = "the role AcrPull (and AcrPush to write) on the registry for this identity"
_NAMES_IDENTITY: Final = (
    "AZURE_CLIENT_ID",
    "AZURE_CLIENT_SECRET",
    "AZURE_CLIENT_CERTIFICATE_PATH",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_USERNAME",
    "IDENTITY_ENDPOINT",
    "MSI_ENDPOINT",
)
"""Variables with which somebody has given azure-identity an identity."""
_MAX_ASSERTION_BYTES: Final = 64 * 1024


class AcrIssuer:
    """Refresh tokens of one registry.

    Args:
        site: name of the site, for messages.
        registry: base URL of the registry.
        host: its host name.
        identity: as configured.
        clock: time.
        environ: where the variables of Azure's libraries are looked up.
    """

    def __init__(
        self,
        site: str,
        registry: str,
        host: str,
        identity: AcrIdentity,
        clock: Clock,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._site = site
        self._registry = registry.rstrip("/")
        self._host = host
        self._identity = identity
        self._clock = clock
        self._environ = os.environ if environ is None else environ
        self._owner = ""

    async def issue(self) -> Issued:
        """See `Issuer`."""
        token, self._owner = await self._entra_token()
        remember(token)
        url = f"{self._registry}/oauth2/exchange"
        form = {"grant_type": "access_token", "service": self._host, "access_token": token}
        if tenant := self._tenant():
            form["tenant"] = tenant
        answer = await ask(self._site, url, form=form, needs=_NEEDS)
        refresh = text_of(self._site, answer, "refresh_token", url)
        credentials = Credentials(username=USERNAME, identity_token=refresh)
        return Issued(credentials, _lifetime(refresh, self._clock.now()))

    async def owner(self) -> str:
        """See `Issuer`."""
        return self._owner

    async def _entra_token(self) -> tuple[str, str]:
        client = self._identity.client_id or self._environ.get("AZURE_CLIENT_ID")
        tenant = self._tenant()
        if proof := self._proof():
            if not client or not tenant:
                cause = "an application needs tenant and client_id (or AZURE_TENANT_ID and AZURE_CLIENT_ID)"
                raise AuthFailed(self._site, STEP.operation, cause)
            return await self._application(tenant, client, proof), f"application {client} of tenant {tenant}"
        if self._identity == AcrIdentity() and importlib.util.find_spec("azure.identity"):
            return await _default_credential(self._site), "Azure's default credential"
        return await self._managed(
            client
        ), f"managed identity {client}" if client else "the machine's managed identity"

    def _tenant(self) -> str:
        return self._identity.tenant or self._environ.get("AZURE_TENANT_ID", "")

    def _proof(self) -> Mapping[str, str] | None:
        identity = self._identity
        if identity.client_secret is not None:
            return {"client_secret": identity.client_secret()}
        file = identity.assertion_file
        if file is None and (secret := self._environ.get("AZURE_CLIENT_SECRET")):
            remember(secret)
            return {"client_secret": secret}
        if file is None and (named := self._environ.get("AZURE_FEDERATED_TOKEN_FILE")):
            file = Path(named)
        if file is None:
            return None
        return {
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": _assertion(file),
        }

    async def _application(self, tenant: str, client: str, proof: Mapping[str, str]) -> str:
        base = self._environ.get("AZURE_AUTHORITY_HOST") or self._authority()
        url = f"{base.rstrip('/')}/{tenant}/oauth2/v2.0/token"
        form = {
            "grant_type": "client_credentials",
            "client_id": client,
            "scope": f"{RESOURCE}/.default",
            **proof,
        }
        answer = await ask(
            self._site, url, form=form, needs="an application that exists, and a secret or federation of it"
        )
        return text_of(self._site, answer, "access_token", url)

    def _authority(self) -> str:
        return next(
            (url for suffix, url in _AUTHORITIES.items() if self._host.endswith(suffix)), _PUBLIC_AUTHORITY
        )

    async def _managed(self, client: str | None) -> str:
        base = self._environ.get("AZURE_POD_IDENTITY_AUTHORITY_HOST") or _METADATA
        query = {"api-version": "2018-02-01", "resource": RESOURCE} | (
            {"client_id": client} if client else {}
        )
        url = f"{base.rstrip('/')}/metadata/identity/oauth2/token?{urlencode(query)}"
        try:
            answer = await ask(
                self._site,
                url,
                headers={"Metadata": "true"},
                needs="a managed identity that is assigned to this machine",
                is_local=True,
            )
        except Unavailable as error:
            if error.answered:
                raise
            raise NoIdentity(
                "no Azure identity: neither a client secret nor a federated token file is set, and this machine has no"
                f" metadata server ({error.cause})"
            ) from None
        return text_of(self._site, answer, "access_token", url)


def _assertion(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            text = opened.read(_MAX_ASSERTION_BYTES).decode("ascii").strip()
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not a token"
        raise ConfigError([f"{file}: {why}; expected a federated token"]) from None
    remember(text)
    return text


async def _default_credential(site: str) -> str:
    """A token by the extra `azure`, whose library knows every other way that Azure has."""
    from azure.core.exceptions import ClientAuthenticationError  # noqa: PLC0415 - the extra `azure`
    from azure.identity import DefaultAzureCredential  # noqa: PLC0415

    def read() -> str:
        with DefaultAzureCredential() as credential:
            return str(credential.get_token(f"{RESOURCE}/.default").token)

    try:
        return await asyncio.to_thread(read)
    except ClientAuthenticationError as error:
        # It does not tell "nothing to ask with" from "refused". A public registry is read without either.
        if not any(os.environ.get(name) for name in _NAMES_IDENTITY):
            raise NoIdentity(f"no Azure identity: azure-identity: {error.message}") from None
        failure: SiteError = AuthFailed(site, STEP.operation, f"azure-identity: {error.message}")
        raise failure.needing(_NEEDS) from None


def _lifetime(token: str, now: float) -> float:
    """Until the end that the token names itself. Nothing else depends on what it says, so it is not verified."""
    try:
        body = token.split(".")[1]
        claims: Any = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        left = float(claims["exp"]) - now
    except (IndexError, ValueError, TypeError, KeyError, RecursionError, OverflowError):
        return _REFRESH_SECONDS
    return seconds_of({"left": left}, "left", 60.0)
