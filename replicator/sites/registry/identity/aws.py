"""ECR and ECR Public: the credentials of AWS's usual chain become a registry's user name and password.

Sources: ECR API `GetAuthorizationToken`, STS API `AssumeRole` and `GetCallerIdentity`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import functools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from replicator.errors import AuthFailed, NotFound, Rejected, Unavailable
from replicator.ports import Clock
from replicator.scrub import remember
from replicator.sites.registry.credentials import Credentials
from replicator.sites.registry.identity.settings import EcrIdentity
from replicator.sites.registry.identity.source import STEP, Issued, NoIdentity
from replicator.sites.registry.vendors.ecr import HOST
from replicator.sites.registry.vendors.ecr_public import ECR_PUBLIC

PUBLIC_HOSTS: Final = frozenset(ECR_PUBLIC.hosts)
_PUBLIC_REGION: Final = "us-east-1"
"""The only region that issues credentials for ECR Public."""
_MIN_LIFETIME_SECONDS: Final = 60.0
_TIMEOUT_SECONDS: Final = 30
_SESSION_SECONDS: Final = 60.0
"""How long what was looked up to get credentials also serves to ask whose they are."""
_THROTTLED: Final = frozenset(
    {"Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequestsException"}
)


@dataclass(frozen=True, slots=True)
class EcrHost:
    """What a host name of ECR says. `account` is "" for ECR Public."""

    account: str
    region: str
    is_fips: bool = False

    @property
    def is_public(self) -> bool:
        """Whether this is ECR Public."""
        return not self.account


def parse_host(host: str) -> EcrHost | None:
    """The host name of ECR or ECR Public taken apart; None for any other."""
    if host in PUBLIC_HOSTS:
        return EcrHost("", _PUBLIC_REGION)
    match = HOST.fullmatch(host)
    if match is None:
        return None
    return EcrHost(match["account"], match["region"], is_fips=match["fips"] is not None)


class EcrAccess:
    """Clients of AWS's APIs as one identity.

    Args:
        site: name of the site, for messages.
        host: what the registry's host name says.
        identity: the profile and the role.
        keep_seconds: how long credentials that were found, a role that was assumed, and `kept_client` are used again.

    `large` are the repositories that have more images than one answer of DescribeImages, as listings have seen.
    """

    def __init__(self, site: str, host: EcrHost, identity: EcrIdentity, *, keep_seconds: float = 0.0) -> None:
        self._site = site
        self._host = host
        self._identity = identity
        self._keep_seconds = keep_seconds
        self._kept: tuple[float, AioSession] | None = None
        self._clients: dict[str, tuple[float, Any]] = {}
        self._open = AsyncExitStack()
        self._one = asyncio.Lock()
        self._one_client = asyncio.Lock()
        self.large: set[str] = set()

    @property
    def registry_id(self) -> str:
        """The account that owns the registry."""
        return self._identity.registry_id or self._host.account

    @asynccontextmanager
    async def client(self, service: str) -> AsyncIterator[Any]:
        """A client of `service` ("ecr", "ecr-public", "sts"), closed at the end.

        Raises:
            NoIdentity: no credentials of AWS were found.
            AuthFailed: they are refused, or the profile does not exist.
            Unavailable: no answer.
        """
        with self.mapped(service):
            session = await self._current()
            async with session.create_client(
                service, region_name=self._region(session), config=self._config()
            ) as client:
                yield client

    async def kept_client(self, service: str) -> Any:
        """A client that is shared and stays open until `aclose`: to make one takes a quarter of a second.

        Raises as `client` does.
        """
        async with self._one_client:
            now = asyncio.get_running_loop().time()
            made_at, client = self._clients.get(service, (0.0, None))
            if client is None or now - made_at >= self._keep_seconds:
                client = await self._open.enter_async_context(self.client(service))
                self._clients[service] = now, client
            return client

    async def aclose(self) -> None:
        """Closes the clients that were kept."""
        await self._open.aclose()

    def mapped(self, service: str) -> _Mapped:
        """Turns what botocore raises into `SiteError`s."""
        return _Mapped(self._site, service)

    def _region(self, session: AioSession) -> str:
        if self._host.is_public:
            return _PUBLIC_REGION
        return (
            self._identity.region
            or self._host.region
            or session.get_config_variable("region")
            or _PUBLIC_REGION
        )

    def _config(self) -> AioConfig:
        return AioConfig(
            connect_timeout=_TIMEOUT_SECONDS,
            read_timeout=_TIMEOUT_SECONDS,
            retries={"mode": "standard", "total_max_attempts": 3},
            use_fips_endpoint=True if self._host.is_fips else None,
        )

    async def _current(self) -> AioSession:
        async with self._one:
            now = asyncio.get_running_loop().time()
            if self._kept is None or now - self._kept[0] >= self._keep_seconds:
                self._kept = now, await self._session()
            return self._kept[1]

    async def _session(self) -> AioSession:
        session = await asyncio.to_thread(_new_session, self._identity.profile)
        credentials = await session.get_credentials()
        if credentials is None:
            raise NoIdentity(
                "no AWS credentials: looked at the environment, the profile, web identity, and the container's and the"
                ' instance\'s role; set auth = { kind = "ecr", profile = "NAME" } or one of them'
            )
        if self._identity.role_arn is None:
            return session
        return await self._assumed(session, self._identity.role_arn)

    async def _assumed(self, session: AioSession, role: str) -> AioSession:
        asked = {"RoleArn": role, "RoleSessionName": "replicator"}
        if self._identity.external_id is not None:
            asked["ExternalId"] = self._identity.external_id
        async with session.create_client(
            "sts", region_name=self._region(session), config=self._config()
        ) as sts:
            given = (await sts.assume_role(**asked))["Credentials"]
        remember(given["SecretAccessKey"])
        remember(given["SessionToken"])
        other = await asyncio.to_thread(_new_session, None)
        other.set_credentials(given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"])
        return other


@functools.cache
def _loader() -> Any:
    """Botocore's descriptions of services are read once."""
    return AioSession().get_component("data_loader")


def _new_session(profile: str | None) -> AioSession:
    session = AioSession(profile=profile)
    session.register_component("data_loader", _loader())
    return session


class EcrIssuer:
    """User name and password for ECR, good for twelve hours and for every registry that the identity may use."""

    def __init__(self, site: str, host: EcrHost, identity: EcrIdentity, clock: Clock) -> None:
        self._site = site
        self._host = host
        self._access = EcrAccess(site, host, identity, keep_seconds=_SESSION_SECONDS)
        self._identity = identity
        self._clock = clock

    async def issue(self) -> Issued:
        """See `Issuer`."""
        service = "ecr-public" if self._host.is_public else "ecr"
        async with self._access.client(service) as client:
            asked = {"registryIds": [self._identity.registry_id]} if self._identity.registry_id else {}
            answer = await client.get_authorization_token(**({} if self._host.is_public else asked))
        data = answer.get("authorizationData")
        # A list at ECR, an object at ECR Public.
        given = data[0] if isinstance(data, list) and data else data
        return Issued(self._credentials(given), self._lifetime(given))

    def _credentials(self, given: Any) -> Credentials:
        try:
            username, colon, password = base64.b64decode(given["authorizationToken"]).decode().partition(":")
        except (TypeError, KeyError, binascii.Error, UnicodeError):
            username = colon = password = ""
        if not colon or not password:
            raise Unavailable(self._site, STEP.operation, "ECR answered without credentials", answered=True)
        return Credentials(username, password)

    def _lifetime(self, given: Any) -> float:
        expires = given.get("expiresAt")
        if not isinstance(expires, datetime):
            return _MIN_LIFETIME_SECONDS
        return max(expires.timestamp() - self._clock.now(), _MIN_LIFETIME_SECONDS)

    async def owner(self) -> str:
        """See `Issuer`. The identity's ARN; a policy may forbid to ask for it, which is not a failure."""
        try:
            async with self._access.client("sts") as sts:
                return str((await sts.get_caller_identity())["Arn"])
        except (AuthFailed, Unavailable):
            return "an AWS identity that may not ask who it is (sts:GetCallerIdentity)"


class _Mapped:
    """A context that turns what botocore raises into `SiteError`s."""

    def __init__(self, site: str, service: str) -> None:
        self._site = site
        self._service = service

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, boto.ClientError):
            raise self._refused(error) from None
        if isinstance(
            error, boto.HTTPClientError | boto.ConnectionError | ResponseParserError | TimeoutError
        ):
            raise Unavailable(self._site, STEP.operation, f"AWS {self._service}: {error}") from None
        if isinstance(error, boto.ParamValidationError):
            raise Rejected(self._site, STEP.operation, f"AWS {self._service}: {error}") from None
        if isinstance(error, boto.BotoCoreError):
            # A profile that does not exist, half a pair of keys, an SSO session that has ended.
            raise AuthFailed(self._site, STEP.operation, f"AWS credentials: {error}") from None

    def _refused(self, error: boto.ClientError) -> AuthFailed | NotFound | Unavailable:
        said = error.response.get("Error", {})
        code, message = said.get("Code", ""), said.get("Message", "")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        cause = f"AWS {self._service} {error.operation_name}: {code}: {message}"
        if code in _THROTTLED or status >= 500:
            return Unavailable(self._site, STEP.operation, cause, answered=True)
        if code == "RepositoryNotFoundException":
            return NotFound(self._site, STEP.operation, cause)
        needs = {
            "AssumeRole": "sts:AssumeRole on the role, and a trust policy of the role that names the identity",
            "GetAuthorizationToken": "ecr-public:GetAuthorizationToken and sts:GetServiceBearerToken"
            if self._service == "ecr-public"
            else "ecr:GetAuthorizationToken",
        }.get(error.operation_name, f"{self._service}:{error.operation_name}")
        return AuthFailed(self._site, STEP.operation, cause).needing(needs)
