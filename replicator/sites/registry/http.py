"""Requests to one registry: authenticated, limited, bounded in size and time, and every failure a `SiteError`.

Here a reply is a status, headers and bytes; `repository.py` and what it uses know what a registry means by them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Final, TypeVar

from msgspec.structs import replace
from yarl import URL

from replicator.errors import SiteError, Unavailable
from replicator.events import Events, RequestDone, RetryPlanned
from replicator.flow.limits import SiteLimits, Traffic
from replicator.flow.retry import DEFAULT_BUDGET, Budget, Serving, retrying
from replicator.ports import Chunk, Clock
from replicator.sites.reading import Patience
from replicator.sites.registry.auth import Authenticator
from replicator.sites.registry.body import UploadBody
from replicator.sites.registry.call import Call, Reply
from replicator.sites.registry.credentials import Credentials
from replicator.sites.registry.failures import Failures
from replicator.sites.registry.feedback import Feedback
from replicator.sites.registry.feeding import fed, raise_source_failure
from replicator.sites.registry.grants import MAX_GRANTS, NO_GRANT, Grant, Scope
from replicator.sites.registry.identity.choose import logins_of
from replicator.sites.registry.payload.answer import Answer
from replicator.sites.registry.quota import PullQuota
from replicator.sites.registry.redirects import Redirects, is_redirect
from replicator.sites.registry.settings import RegistrySettings
from replicator.sites.registry.streaming import StreamReply
from replicator.sites.registry.wire import Wire
from replicator.sites.timeouts import Timeouts

__all__ = ["Call", "Reply", "Timeouts", "Transport"]

T = TypeVar("T")

_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "PUT", "DELETE"})
_REFUSALS: Final = frozenset({401, 403})


class Transport:
    """The HTTP side of one registry.

    Args:
        settings: the site.
        limits: its gates and paces; every request passes one.
        events: gets `RequestDone`, `RetryPlanned`, `QuotaSeen` and `Warned`.
        clock: the time.
        timeouts: instead of those of the settings.
        budget: how often and how long idempotent requests are tried.
        see: told the headers of the ping's answer.

    Raises:
        ConfigError: TLS files or proxy cannot be used.
    """

    def __init__(
        self,
        settings: RegistrySettings,
        *,
        limits: SiteLimits,
        events: Events,
        clock: Clock,
        timeouts: Timeouts | None = None,
        budget: Budget = DEFAULT_BUDGET,
        see: Callable[[Mapping[str, str]], None] | None = None,
    ) -> None:
        self._site = settings.name
        self._limits = limits
        self._events = events
        self._clock = clock
        self._timeouts = timeouts or settings.timeouts
        self._budget = budget
        self._wire = Wire(settings, self._timeouts, events, clock)
        logins = logins_of(settings, events=events, clock=clock)
        self._auth = Authenticator(self._wire, clock, logins, see=see)
        self._prefix = settings.url.rstrip("/")
        self._path_prefix = self._wire.base.raw_path.rstrip("/")
        self.quota = PullQuota(settings.name, settings.quota, events, clock)
        self._feedback = Feedback(self._wire.is_own, limits, self.quota, clock)
        self._redirects = Redirects(settings.name, self._wire)
        self._failures = Failures(settings.name, self._wire.origin, self._auth, clock)
        self._awaiting_grant = 0
        limits.expect(self._wire.connect_ahead)

    @property
    def site(self) -> Serving:
        """What the site serves, for those who try again by themselves."""
        return self._limits

    @property
    def bytes_per_second(self) -> float | None:
        """What the site is limited to now, read and written together; None: no limit."""
        return self._limits.bytes_per_second

    async def request(self, call: Call, *, once: bool = False) -> Reply:
        """Sends a call and reads the whole reply; tried again where that is safe, unless only `once`.

        Raises:
            SiteError: no reply, or one of a status not in `call.expected`.
        """
        attempt = partial(self._request, call)
        return await (attempt() if once else self._retried(call, attempt))

    @asynccontextmanager
    async def stream(self, call: Call) -> AsyncIterator[StreamReply]:
        """Sends a call and hands over its reply unread; opening is tried again, reading is not.

        A "reads" slot is held until the context ends, which drops what is unread.

        Raises:
            SiteError: as `request`.
        """
        response, slot = await self._retried(call, partial(self._open, call, "reads"))
        try:
            yield StreamReply(self._wire, call, response, self._limits)
        finally:
            response.close()  # which after the last byte gives the connection back
            await slot.__aexit__(None, None, None)

    def uploads(self, size: int | None) -> AbstractAsyncContextManager[None]:
        """A "writes" slot for several calls of `upload`, one after the other, of parts of a blob of `size` bytes."""
        return self._limits.kept("writes", size=size)

    async def upload(
        self,
        call: Call,
        body: Callable[[], AsyncIterator[Chunk]],
        length: int | None,
        failure: Callable[[], SiteError | None],
        *,
        within: bool = False,
    ) -> Reply:
        """Sends a call with a body from a source, once.

        The source is closed when this returns or raises. A 401 is raised as `AuthFailed`, advising RETRY where a
        new token is at hand: the body is gone, so the caller begins again.

        Args:
            call: the request; its own `body` is not used.
            body: makes the iterator of chunks; called when the slot is held.
            length: sent as Content-Length; None sends the body chunked.
            failure: the error that broke the source; None as long as it is intact.
            within: the caller holds the slot (`uploads`).

        Raises:
            SiteError: the source's own, if it broke; `Corrupt` if it gave another number of bytes than `length`;
                else as `request`. `Unavailable` where nothing was taken for `Timeouts.read`.
        """
        url, grant = await self._prepare(call, before_body=True)
        size = {} if length is None else {"Content-Length": str(length)}
        headers = {"Content-Type": "application/octet-stream", **call.headers, **grant.headers, **size}
        limits, named = self._limits, (call.operation, call.repository)
        async with (
            limits.turn_for(*named) if within else limits.slot_for("writes", *named, size=call.blob_bytes)
        ):
            feed = UploadBody(
                body(),
                length,
                limits=self._limits,
                stall_seconds=self._timeouts.read,
                commit_seconds=self._timeouts.commit_seconds,
            )
            try:
                reply = await fed(
                    self._wire,
                    call,
                    url,
                    headers,
                    feed,
                    learn=partial(self._feedback.learn, "writes", url, self._clock.monotonic()),
                )
            except Unavailable:
                raise_source_failure(self._site, call, feed, failure)
                raise
            finally:
                await feed.aclose()
        raise_source_failure(self._site, call, feed, failure)
        return await self._judged(call, reply, grant)

    def sends_whole(self, url: str) -> bool:
        """Whether a small body for the URL, relative or absolute, can go by `upload_whole`."""
        return self._wire.is_small(self._own_url(url) if url.startswith("/") else URL(url, encoded=True))

    async def upload_whole(self, call: Call) -> Reply:
        """Sends a call with its own small body into an upload session, once, as `upload` does, among the small requests.

        Raises:
            SiteError: as `upload`.
        """
        url, grant = await self._prepare(call, before_body=True)
        if call.blob_bytes is not None:
            await self._limits.pace_bytes(call.blob_bytes)
        async with self._limits.slot_for("requests", call.operation, call.repository):
            response = await self._send(call, "requests", url, grant, once=True)
            body = await self._wire.read_error(response)
        return await self._judged(call, Reply(response.status, response.headers, body, response.url), grant)

    async def _judged(self, call: Call, reply: Reply, grant: Grant) -> Reply:
        """The reply to a body that is gone, where it is expected; else its error is raised."""
        if reply.status in call.expected:
            grant.accepted |= reply.status not in _REFUSALS
            return reply
        raise await self._failures.upload_refusal(call, reply, grant)

    def error(self, call: Call, reply: Reply | StreamReply) -> SiteError:
        """The error that a reply amounts to, by its status and codes; for statuses that the caller had expected."""
        if isinstance(reply, StreamReply):
            reply = Reply(reply.status, reply.headers, b"", reply.url)
        return self._failures.error(call, reply)

    async def meet(self) -> None:
        """Asks the registry what it is, unless that is known: one ping, which the first request would have caused."""
        await self._auth.meet()

    def limit_to(self, share: float) -> None:
        """Keeps to a part of the site's limits; see `ports.SharesLimits`."""
        self._limits.limit_to(share)

    def meet_ahead(self) -> None:
        """Begins that ping now; the first request takes its outcome over."""
        self._auth.meet_ahead()

    def connect_ahead(self) -> None:
        """Opens a connection in the background; see `ports.ConnectsAhead`."""
        self._wire.connect_ahead(1)

    async def credentials(self, repository: str | None) -> Credentials | None:
        """The site's credentials; None for anonymous. Only for the vendor's own API."""
        return await self._auth.credentials(repository)

    @asynccontextmanager
    async def turn(self, operation: str, repository: str | None) -> AsyncIterator[None]:
        """Limits and counts one small request that a library sends."""
        async with self._limits.slot_for("requests", operation, repository):
            began, code = self._clock.monotonic(), "200"
            try:
                yield
            except SiteError as error:
                code = error.reason
                raise
            finally:
                seconds = self._clock.monotonic() - began
                self._events.emit(RequestDone(self._site, operation, code, seconds))

    @property
    def asks_for_credentials(self) -> bool:
        """Whether the registry has asked for any. Until it does, those that are set are not tried."""
        return self._auth.is_asked

    async def owner(self) -> str:
        """Whose the credentials are, where a cloud issued them; "" otherwise."""
        return await self._auth.owner()

    def is_own_origin(self, url: URL) -> bool:
        """Whether the URL is of the registry's own scheme, host and port."""
        return self._wire.is_own(url)

    def locate(self, location: str, asked: URL) -> str:
        """As `location.resolve_location`, by this registry's rules."""
        return self._redirects.locate(location, asked)

    async def aclose(self) -> None:
        """Closes all connections."""
        await self._auth.aclose()
        await self._wire.aclose()

    # --- one attempt ----------------------------------------------------------------------------------------

    async def _retried(self, call: Call, attempt: Callable[[], Awaitable[T]]) -> T:
        def tell(error: SiteError, wait: float) -> None:
            self._events.emit(RetryPlanned(self._site, call.operation, error.reason, wait))

        if call.method in _IDEMPOTENT if call.idempotent is None else call.idempotent:
            return await retrying(attempt, self._budget, tell, site=self._limits)
        # Ping and token are safe to ask for again, whatever the request itself is; so is one that was not taken.
        await retrying(partial(self._prepare, call), self._budget, tell, site=self._limits)
        return await retrying(attempt, self._budget, tell, site=self._limits, only_refused=True)

    async def _request(self, call: Call) -> Reply:
        if self.quota.is_limiting and call.method == "GET" and "/manifests/" in call.url:
            await self.quota.take(call, lambda: self._request(replace(call, method="HEAD")))
        if call.blob_bytes is not None:
            await self._limits.pace_bytes(call.blob_bytes)
        response, slot = await self._open(call, "requests")
        try:
            body = await self._wire.read(call, response, call.max_bytes)
        finally:
            await slot.__aexit__(None, None, None)
        return Reply(response.status, response.headers, body, response.url)

    async def _prepare(self, call: Call, *, before_body: bool = False) -> tuple[URL, Grant]:
        """Where a call goes, and as whom."""
        if call.url.startswith("/"):
            url = self._own_url(call.url)
        else:
            url = self._redirects.checked(call, URL(call.url, encoded=True))
            if not self._wire.is_own(url):
                return url, NO_GRANT
        if call.own_login:
            return url, NO_GRANT
        scope = Scope(call.repository, call.actions, call.also_pull)
        if (grant := self._auth.held(scope, before_body=before_body)) is not None:
            return url, grant
        if call.is_payload:  # threads have connections of their own
            return url, await self._auth.obtain(scope)
        self._awaiting_grant += 1
        # While the ping or the token is awaited, the connections are opened over which those who wait go on.
        self._wire.connect_ahead(self._limits.at_once(self._awaiting_grant))
        try:
            return url, await self._auth.obtain(scope)
        finally:
            self._awaiting_grant -= 1

    def _own_url(self, path: str) -> URL:
        """The URL of a path of the registry's API, with or without a query, as it is."""
        if "?" in path or "#" in path:
            return URL(self._prefix + path, encoded=True)
        return self._wire.base.with_path(self._path_prefix + path, encoded=True)  # without parsing it

    async def _open(self, call: Call, kind: Traffic) -> tuple[Answer, AbstractAsyncContextManager[None]]:
        """An expected response, unread, and the slot that is held for it."""
        url, grant = await self._prepare(call)
        tried = 0
        while True:
            slot = await self._limits.enter(kind, call.operation, call.repository, size=call.blob_bytes)
            is_handed_over = False
            try:
                response = await self._send(call, kind, url, grant)
                if response.status in call.expected:
                    grant.accepted |= response.status not in _REFUSALS
                    is_handed_over = True
                    return response, slot
                body = await self._wire.read_error(response)
            finally:
                if not is_handed_over:
                    await slot.__aexit__(None, None, None)
            reply = Reply(response.status, response.headers, body, response.url)
            renewed = await self._renewed(grant, reply)
            tried += 1
            if renewed is None or tried >= MAX_GRANTS:
                raise await self._failures.refusal(call, reply, grant)
            grant = renewed

    async def _renewed(self, grant: Grant, reply: Reply) -> Grant | None:
        if grant is NO_GRANT or not self.is_own_origin(reply.url):
            return None
        if reply.status in _REFUSALS:
            return await self._auth.renewed(grant, reply)
        grant.accepted = True
        return None

    async def _send(self, call: Call, kind: Traffic, url: URL, grant: Grant, *, once: bool = False) -> Answer:
        headers = {**call.headers, **grant.headers} if call.headers else grant.headers
        patience = self._patience(call, kind)
        began = self._clock.monotonic()
        response = await self._wire.send(
            call,
            call.method,
            url,
            headers,
            data=call.body,
            patience=patience,
            payload=call.is_payload,
            once=once,
        )
        if is_redirect(call, response):
            self._limits.answered()
            response = await self._redirects.follow(call, response, headers, patience)
        self._feedback.learn(kind, url, began, response)
        return response

    def _patience(self, call: Call, kind: Traffic) -> Patience | None:
        """How long the headers of the answer are waited for; None for what a registry knows at once."""
        if kind == "reads" or (call.blob_bytes is not None and call.method == "GET"):
            return Patience(self._timeouts.first_byte, "first_byte")
        if call.method in {"PUT", "PATCH"}:
            return Patience(self._timeouts.commit_seconds(call.commits), "commit")
        return None if call.method in {"GET", "HEAD"} else Patience(self._timeouts.first_byte, "first_byte")
