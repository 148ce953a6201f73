"""Requests to one bucket: signed, limited, bounded in time, tried again, and every failure a `SiteError`."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.request import getproxies_environment

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.exceptions import BotoCoreError, ClientError
from botocore.loaders import Loader, create_loader
from botocore.parsers import ResponseParserError

from replicator.errors import AuthFailed, ConfigError, SiteError, Throttled, Unavailable
from replicator.events import Events, RequestDone, RetryPlanned
from replicator.flow.limits import SiteLimits, Traffic
from replicator.flow.retry import DEFAULT_BUDGET, Budget, retrying
from replicator.ports import Clock
from replicator.scrub import remember, remember_login
from replicator.sites.cleanup import CleanupRequests
from replicator.sites.objects.s3.deadline import Deadline, Wait
from replicator.sites.objects.s3.errormap import BucketAddress, s3_error, word
from replicator.sites.objects.s3.moments import read_time
from replicator.sites.objects.s3.transport import BrokenTransport, GuardedSession, one_call
from replicator.sites.objects.settings import S3Settings
from replicator.sites.reading import BrokenFraming

T = TypeVar("T")

CLEANUP_SECONDS: Final = 5.0
"""How long a cleanup request may take."""
DEFAULT_REGION: Final = "us-east-1"
"""What stores that have no regions expect in a signature."""

_TOLD: Final[Mapping[str, frozenset[str]]] = {
    "complete_multipart_upload": frozenset({"ETag"}),
    "copy_object": frozenset({"CopyObjectResult"}),
    "create_multipart_upload": frozenset({"UploadId"}),
    "get_object": frozenset({"ETag"}),
    "head_object": frozenset({"ContentLength", "ETag", "LastModified"}),
    "list_objects_v2": frozenset({"IsTruncated"}),
    "put_object": frozenset({"ETag"}),
    "upload_part": frozenset({"ETag"}),
    "upload_part_copy": frozenset({"CopyPartResult"}),
}
"""What a reply has if it is one. botocore reads any web page with a 200 as an empty listing or a done writing."""

# botocore's parser fails with AttributeError or TypeError on an element that is there twice.
_UNPARSED: Final = (ResponseParserError, AttributeError, TypeError)
FAILURES: Final = (
    *(BotoCoreError, ClientError, BrokenTransport, BrokenFraming, OSError, TimeoutError, ValueError),
    *_UNPARSED,
)


@dataclass(frozen=True, slots=True)
class Step:
    """One request for events and errors.

    `verb` is the metric's label, `operation` the error's (it names the key); `kind` is the gate that the request
    passes, or, with `holds_slot`, that its caller has passed already. `wait` and `commits`: see `Deadline`.
    """

    verb: str
    operation: str
    kind: Traffic = "requests"
    holds_slot: bool = False
    wait: Wait = "read"
    commits: int = 0


@dataclass(frozen=True, slots=True, repr=False)
class _Credentials:
    access_key: str
    secret_key: str
    token: str | None


class Bucket:
    """One bucket at one endpoint.

    The client is made at the first request. When the store refuses the credentials, they are looked up once more
    (static ones, files, roles); where they are others now, the request is sent again with those.
    """

    def __init__(
        self,
        settings: S3Settings,
        *,
        limits: SiteLimits,
        events: Events,
        clock: Clock,
        budget: Budget = DEFAULT_BUDGET,
    ) -> None:
        self.settings = settings
        self.limits = limits
        self._events = events
        self._clock = clock
        self._budget = budget
        endpoint = settings.endpoint or f"AWS ({settings.region or 'default region'})"
        self.place = BucketAddress(settings.name, settings.bucket, endpoint)
        self._clients = contextlib.AsyncExitStack()
        self._opening = asyncio.Lock()
        self._client: Any = None
        self._credentials: _Credentials | None = None
        self._cleanups = CleanupRequests(CLEANUP_SECONDS)

    async def ask(self, step: Step, method: str, /, **parameters: Any) -> Mapping[str, Any]:
        """What botocore's client method returns for this bucket; tried again where that helps.

        A `Body` is sent from its start each time.

        Raises:
            SiteError: see `errormap`.
        """
        return await self.retried(step, lambda: self.send(step, method, **parameters))

    async def retried(self, step: Step, call: Callable[[], Awaitable[T]]) -> T:
        """What `call` returns, called again while its error advises so."""

        def told(error: SiteError, wait: float) -> None:
            self._events.emit(RetryPlanned(self.place.site, step.verb, error.reason, wait))

        return await retrying(call, self._budget, told)

    async def send(self, step: Step, method: str, /, **parameters: Any) -> Mapping[str, Any]:
        """As `ask`, once."""
        slot = (
            contextlib.nullcontext() if step.holds_slot else self.limits.slot_for(step.kind, step.operation)
        )
        async with slot:
            client = await self._open(step)
            try:
                return await self._timed(step, client, method, parameters)
            except AuthFailed:
                newer = await self._reopened(step, client)
                if newer is None:
                    raise
                return await self._timed(step, newer, method, parameters)

    async def _timed(
        self, step: Step, client: Any, method: str, parameters: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        body, commits = None, step.commits
        if "Body" in parameters:
            body = _rewound(parameters["Body"])
            commits = len(body.getbuffer())
            parameters = {**parameters, "Body": body}
        deadline = Deadline(self.settings.timeouts, step.wait, commits, body)
        began = self._clock.monotonic()
        code = "cancelled"
        try:
            async with self.mapped(step):
                try:
                    with one_call():
                        async with deadline:
                            reply: Mapping[str, Any] = await getattr(client, method)(
                                Bucket=self.settings.bucket, **parameters
                            )
                except FAILURES as error:
                    code = word(error)
                    raise
            code = str(reply["ResponseMetadata"]["HTTPStatusCode"])
            self._check(step, method, reply)
        finally:
            self._events.emit(RequestDone(self.place.site, step.verb, code, self._clock.monotonic() - began))
        self.limits.succeeded(step.kind)
        return reply

    def _check(self, step: Step, method: str, reply: Mapping[str, Any]) -> None:
        missing = _TOLD.get(method, frozenset()) - reply.keys()
        if missing:
            if "Body" in reply:
                reply["Body"].close()
            text = f"{self.place.endpoint} does not answer as S3 does (no {', '.join(sorted(missing))})"
            raise Unavailable(self.place.site, step.operation, text)

    @contextlib.asynccontextmanager
    async def mapped(self, step: Step) -> AsyncIterator[None]:
        """Turns botocore's exceptions into ours; a store that wants less gets less."""
        try:
            yield
        except FAILURES as error:
            mapped = s3_error(self.place, step.operation, error)
            if isinstance(mapped, Throttled):
                self.limits.congested(step.kind, mapped.retry_after)
            raise mapped from None

    async def clean_up(self, request: Coroutine[Any, Any, object]) -> None:
        """Waits for a request that takes back what was begun; see `CleanupRequests`."""
        await self._cleanups.run(request)

    async def aclose(self) -> None:
        """Waits for the cleanup requests, then closes the connections."""
        await self._cleanups.aclose()
        async with self._opening:
            self._client = None
            await self._clients.aclose()

    # --- the client ---

    async def _open(self, step: Step) -> Any:
        if self._client is not None:
            return self._client
        async with self._opening:
            if self._client is None:
                await self._connect(step)
            return self._client

    async def _reopened(self, step: Step, refused: Any) -> Any:
        """A client with different credentials from the refused one's; None if the credentials are still the same."""
        async with self._opening:
            if self._client is refused:
                before = self._credentials
                session, credentials = await self._look_up(step)
                if credentials == before:
                    return None
                await self._connect(step, session, credentials)
            return self._client

    async def _connect(
        self, step: Step, session: AioSession | None = None, credentials: _Credentials | None = None
    ) -> None:
        async with self.mapped(step):
            if session is None:
                session, credentials = await self._look_up(step)
            client = session.create_client(
                "s3",
                region_name=self.settings.region or session.get_config_variable("region") or DEFAULT_REGION,
                endpoint_url=self.settings.endpoint,
                config=_config(self.settings),
            )
            for proxy in getproxies_environment().values():  # botocore reads them there, too
                remember_login(proxy)
            # An older client stays open for the requests that still use it.
            self._client = await self._clients.enter_async_context(client)
        self._credentials = credentials

    async def _look_up(self, step: Step) -> tuple[AioSession, _Credentials | None]:
        keys = self.settings.keys
        async with self.mapped(step):
            session = AioSession(profile=self.settings.profile)
            session.register_component("data_loader", await asyncio.to_thread(_descriptions))
            session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=read_time)
            if keys is None:
                found = await session.get_credentials()
                if found is None:
                    return session, None  # botocore says so itself, at the first request
                frozen = await found.get_frozen_credentials()
                credentials = _Credentials(frozen.access_key, frozen.secret_key, frozen.token)
                _remember(credentials)
                return session, credentials
        try:
            token = keys.session_token() if keys.session_token else None
            credentials = _Credentials(keys.access_key(), keys.secret_key(), token)
            _remember(credentials)
        except ConfigError as error:
            raise AuthFailed(self.place.site, step.operation, str(error)) from None
        session.set_credentials(credentials.access_key, credentials.secret_key, credentials.token)
        return session, credentials


def _remember(credentials: _Credentials) -> None:
    """So that no store that quotes them brings them into a report."""
    remember(credentials.secret_key)
    if credentials.token:
        remember(credentials.token)


@functools.cache
def _descriptions() -> Loader:
    """Botocore's description of S3, read once for all stores: a tenth of a second that no loop should stand still."""
    loader = create_loader()
    for name in ("service-2", "endpoint-rule-set-1"):
        loader.load_service_model("s3", name)
    for name in ("endpoints", "partitions", "sdk-default-configuration"):
        loader.load_data(name)
    return loader


def _config(settings: S3Settings) -> AioConfig:
    path_style = settings.endpoint is not None if settings.path_style is None else settings.path_style
    return AioConfig(
        connect_timeout=settings.timeouts.connect,
        read_timeout=None,  # the limits are ours, for each request: see `Deadline` and `Reading`
        max_pool_connections=4 * settings.limits.concurrency,
        retries={"total_max_attempts": 1, "mode": "standard"},  # flow.retry does that
        # botocore's own default sends trailing checksums that many S3-compatible stores refuse.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path" if path_style else "auto"},
        user_agent_extra="replicator",
        http_session_cls=GuardedSession,
    )


def _rewound(body: bytes | io.BytesIO) -> io.BytesIO:
    """The body as a file at its start: aiohttp warns of large bytes, and takes a file piece by piece."""
    if isinstance(body, bytes):
        return io.BytesIO(body)
    body.seek(0)
    return body
