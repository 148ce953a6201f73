"""Sending one blob into one repository: mount, upload, resume, clean up.

An upload session that we opened ends in one of two ways: closed by its PUT, or cancelled by DELETE as far as
the registry allows it. Sources: OCI distribution-spec, "Pushing blobs"; docs/quirks.md, "Uploads".
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final

from msgspec.structs import replace

from replicator.errors import (
    Advice,
    AuthFailed,
    Corrupt,
    Denied,
    SiteError,
    Throttled,
    Transient,
    Unavailable,
)
from replicator.events import RetryPlanned
from replicator.flow.patience import UPLOAD
from replicator.flow.retry import is_refusal, retrying
from replicator.ports import BlobOutcome, BlobSource, ReadsWhole
from replicator.sites.registry.blobs import blob_exists
from replicator.sites.registry.call import Call, Reply
from replicator.sites.registry.context import Registry
from replicator.sites.registry.create import OPERATION as CREATE
from replicator.sites.registry.create import writing
from replicator.sites.registry.immutable import says
from replicator.sites.registry.sending import OCTETS, OPERATION, BlobSender, BodyRefused, SourceFailed
from replicator.sites.registry.sessions import (
    Session,
    cancel,
    move,
    opened,
    reported_offset,
    session_call,
    start_call,
)

ATTEMPTS: Final = UPLOAD

_SMALL_BYTES: Final = 1024 * 1024
_HELD_BYTES: Final = 64 * 1024
"""Up to here a blob is read to its end before anything is written: one request each, and none to read it again."""


def _was_cut(error: SiteError) -> bool:
    """Whether the other side closed the connection while the body went out, instead of letting it run into a limit."""
    words = ("broke", "closed the connection")
    return (
        isinstance(error, Unavailable)
        and error.operation == OPERATION
        and any(w in error.cause for w in words)
    )


class Upload:
    """One blob on its way into one repository; used once."""

    def __init__(self, registry: Registry, repository: str, source: BlobSource) -> None:
        self._registry = registry
        self._repository = repository
        self._source = source
        self._digest = source.descriptor.digest
        self._size = source.descriptor.size
        self._session: Session | None = None
        self._stale: list[Session] = []
        self._failures = 0
        self._reached = 0
        self._sender = BlobSender(registry, repository, source)

    async def run(self, origin: str | None) -> BlobOutcome:
        """Mounts or uploads; see `ports.Repository.write_blob`.

        Raises:
            SiteError: the source's own where that broke, else the registry's. Nothing is visible then, and the
                session is cancelled where the registry allows it, also after a cancellation.
        """
        try:
            if origin is not None and self._registry.knowledge.record.mount and await self._mount(origin):
                return "mounted"
            # Nobody has asked whether the blob is there where a mount was expected to say so.
            if origin is not None and await self._is_perhaps_there():
                await self._abandon()
                return "present"
            data = await self._hold()
            if data is None or not await self._post_whole(data):
                await retrying(self._attempt, ATTEMPTS, self._tell_retry, site=self._registry.transport.site)
        except SourceFailed as error:
            await self._abandon()
            raise error.failure from None
        except BaseException:
            await self._abandon()
            raise
        await self._abandon()
        return "copied"

    async def _hold(self) -> bytes | None:
        """The bytes of a small blob, if the source gives them whole. Raises the source's own error."""
        source, size = self._source, self._size
        if size is None or size > _HELD_BYTES or not isinstance(source, ReadsWhole):
            return None
        data = await source.whole()
        self._sender.hold(data)
        return data

    async def _post_whole(self, data: bytes) -> bool:
        """Whether the blob went up in the POST alone; else the session that this opened, if it did, is kept.

        OCI distribution-spec, "Single POST": a registry that does not support it opens a session (202), as distribution
        does. Whatever else one answers, the two requests of an ordinary upload decide (docs/quirks.md#single-post).
        """
        knowledge = self._registry.knowledge
        if self._session is not None or not knowledge.tries_single_post():
            return False
        is_known = knowledge.record.single_post == "yes"
        call = replace(
            start_call(self._repository),
            operation=OPERATION,
            url=f"/v2/{self._repository}/blobs/uploads/?digest={self._digest}",
            headers=OCTETS,
            body=data,
            blob_bytes=len(data),
        )
        try:
            # Where the registry takes the blob, it opens no session that could be left behind.
            reply = await (self._request(call) if is_known else self._post(call))
        except SiteError as error:
            if error.operation == CREATE or (is_known and isinstance(error, AuthFailed | Denied | Transient)):
                raise
            knowledge.learn(single_post="no")
            return False
        if reply.status == 201 and (is_known or await self._is_perhaps_there()):
            await self._sender.check_stored(reply)
            if not is_known:
                knowledge.learn(single_post="yes")
            return True
        knowledge.learn(single_post="no")
        if reply.status == 202:
            knowledge.see(reply.headers)
            self._session = opened(self._registry, self._repository, reply)
        return False

    # --- opening and leaving a session ----------------------------------------------------------------------

    async def _mount(self, origin: str) -> bool:
        """Whether the registry took the blob from `origin`; else its session, if it gave one, is kept."""
        knowledge = self._registry.knowledge
        call = Call(
            "mount blob",
            "POST",
            f"/v2/{self._repository}/blobs/uploads/?mount={self._digest}&from={origin}",
            repository=self._repository,
            actions="pull,push",
            also_pull=origin,
            expected=frozenset({201, 202}),
            idempotent=True,
        )
        try:
            reply = await self._post(call)
        except Throttled:
            raise
        except SiteError as error:
            if error.operation == CREATE:
                raise
            # Harbor answers 401 or 404 for a project it does not show, others 403 or 405: a plain upload decides.
            knowledge.mount_ended(refused=True)
            return False
        knowledge.mount_ended(refused=False)
        if reply.status == 201:
            return True
        self._session = opened(self._registry, self._repository, reply)
        return False

    async def _start(self) -> Session | None:
        """A new session; None if the registry already has the blob (docs/quirks.md#created-without-upload)."""
        reply = await self._post(start_call(self._repository))
        if reply.status == 201:
            if reply.headers.get("Docker-Content-Digest") == self._digest or await self._is_there():
                return None
            raise self._error(Corrupt, "it claims to have the blob, but does not")
        self._registry.knowledge.see(reply.headers)
        return opened(self._registry, self._repository, reply)

    async def _post(self, call: Call) -> Reply:
        """Sends a POST that may open a session; cancelled meanwhile, that session is not left behind."""
        posting = asyncio.create_task(self._request(call))
        try:
            return await asyncio.shield(posting)
        except asyncio.CancelledError:
            await self._registry.cleanups.run(self._take_back(posting))
            raise

    async def _request(self, call: Call) -> Reply:
        return await writing(
            self._registry, self._repository, partial(self._registry.transport.request, call)
        )

    async def _take_back(self, posting: asyncio.Task[Reply]) -> None:
        try:
            reply = await posting
            if reply.status == 202:
                session = opened(self._registry, self._repository, reply)
                await cancel(self._registry, self._repository, session)
        except SiteError:
            return

    async def _abandon(self) -> None:
        """Cancels the sessions that are still open."""
        self._leave()
        stale, self._stale = self._stale, []
        for session in stale:
            await self._registry.cleanups.run(cancel(self._registry, self._repository, session))

    def _leave(self) -> None:
        """Goes on without the session, which is cancelled at the end: not now, where one request more is one more to fail."""
        if self._session is not None:
            self._stale.append(self._session)
        self._session = None
        self._reached = 0

    # --- attempts -------------------------------------------------------------------------------------------

    async def _attempt(self) -> None:
        """Sends what is missing, by whichever strategy the registry takes; raises what `retrying` judges."""
        session = self._session
        if session is not None and session.state != "sound" and not await self._recovers(session):
            if await self._is_perhaps_there():  # only the answer was lost: nothing is sent twice
                self._session = None
                return
            self._leave()
        while True:
            session = self._session = self._session or await self._start()
            if session is None:
                return
            try:
                await self._sender.send(session)
            except BodyRefused as refused:
                self._leave()
                self._sender.step_down(refused)
                continue
            except (AuthFailed, Throttled, Unavailable) as error:
                if await self._was_brought(error):
                    self._leave()
                    return
                if await self._goes_on(error, session):
                    continue
                raise
            self._session = None
            return

    async def _goes_on(self, error: SiteError, session: Session) -> bool:
        """Whether a failure uses up no patience; else the session is left for the next attempt to judge."""
        if _was_cut(error) and self._sender.shrink():
            self._leave()
            return True
        if self._got_on(error, session):
            if not await self._resume(session):
                self._leave()
            return True
        self._failures += 1
        if is_refusal(error):
            session.was_refused()  # for the load: nothing was taken, the session is where it was
        elif session.state == "sound":
            session.state = "doubtful"  # AuthFailed, too: the token ran out before the body was taken
        return False

    def _got_on(self, error: SiteError, session: Session) -> bool:
        """Whether chunks went up since the last failure: then this one uses up no patience."""
        if error.advice is not Advice.RETRY or is_refusal(error) or session.offset <= self._reached:
            return False
        self._reached = session.offset
        return True

    async def _recovers(self, session: Session) -> bool:
        """Whether the session goes on after a failure. A small one is asked how far it came only every other time.

        Where every so-many-th connection dies, the same requests in the same order would meet that each time.
        """
        is_small = self._size is not None and self._size <= _SMALL_BYTES
        if session.state == "spoilt" or (is_small and self._failures % 2 == 0):
            return False
        return await self._resume(session)

    async def _resume(self, session: Session) -> bool:
        """Whether the session goes on, from the offset that the registry reports."""
        record = self._registry.knowledge.record
        if not record.resume or self._size is None:
            return False
        call = session_call(
            self._repository, "ask upload status", "GET", session.url, frozenset({200, 202, 204})
        )
        try:
            reply = await self._registry.transport.request(call)
            move(self._registry, self._repository, session, reply)
        except SiteError:
            return False
        offset = reported_offset(reply.headers, record.status_range)
        if offset is None or offset > self._size:
            return False
        session.offset, session.state, session.history = offset, "sound", "resumed"
        return True

    def _tell_retry(self, error: SiteError, wait: float) -> None:
        self._registry.events.emit(RetryPlanned(self._registry.site, OPERATION, error.reason, wait))

    async def _is_perhaps_there(self) -> bool:
        """For saving an upload only: where it cannot be told, the upload will."""
        try:
            return await self._is_there()
        except SiteError:
            return False

    async def _was_brought(self, error: SiteError) -> bool:
        """Whether a body is refused because another upload has brought the blob (docs/quirks.md#upload-of-what-is-there)."""
        vendor = self._registry.knowledge.vendor
        if vendor is None or not any(says(refusal, error) for refusal in vendor.present):
            return False
        return await self._is_there()

    async def _is_there(self) -> bool:
        return await blob_exists(self._registry, self._repository, self._digest)

    def _error(self, kind: type[SiteError], cause: str) -> SiteError:
        return kind(self._registry.site, OPERATION, cause, repository=self._repository)
