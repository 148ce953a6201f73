"""Sending one blob into one repository: mount, upload, resume, clean up.

An upload session that we opened ends in one of two ways: closed by its PUT, or cancelled by DELETE as far as
the registry allows it. Sources: OCI distribution-spec, "Pushing blobs"; docs/quirks.md, "Uploads".
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Final

from replicator.errors import Advice, AuthFailed, Corrupt, SiteError, Throttled, Unavailable, Unsupported
from replicator.events import RetryPlanned
from replicator.flow.patience import UPLOAD
from replicator.flow.retry import is_refusal, retrying
from replicator.model.digest import algorithm, is_digest
from replicator.ports import BlobOutcome, BlobSource
from replicator.sites.registry.algorithms import learn
from replicator.sites.registry.blobs import blob_exists
from replicator.sites.registry.call import Call, Reply
from replicator.sites.registry.context import Registry
from replicator.sites.registry.create import OPERATION as CREATE
from replicator.sites.registry.create import writing
from replicator.sites.registry.cuts import Cuts
from replicator.sites.registry.errormap import read_error
from replicator.sites.registry.location import with_digest
from replicator.sites.registry.record import CapabilityRecord, Strategy
from replicator.sites.registry.refusals import no_sha512
from replicator.sites.registry.sessions import (
    Session,
    cancel,
    newest_location,
    opened,
    reported_offset,
    start_call,
)

ATTEMPTS: Final = UPLOAD

_OPERATION: Final = "upload blob"
_SMALL_BYTES: Final = 1024 * 1024
_CUTS: Final = 2
"""So many broken connections may be chance."""
_MIN_CHUNK_BYTES: Final = 64 * 1024
_OCTETS: Final[Mapping[str, str]] = {"Content-Type": "application/octet-stream"}
_DONE: Final = frozenset({200, 201, 202, 204})
# What a request with a body may be answered without that being the end: the strategy or the session is to blame.
_JUDGED: Final = _DONE | {400, 404, 405, 411, 413, 416, 501}
_LOST: Final = frozenset(
    {"BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID", "RANGE_INVALID", "REQUESTED_RANGE_NOT_SATISFIABLE"}
)
_FINAL: Final = frozenset({"DIGEST_INVALID", "NAME_INVALID", "NAME_UNKNOWN", "DENIED", "SIZE_INVALID"})


def _was_cut(error: SiteError) -> bool:
    """Whether the other side closed the connection while the body went out, instead of letting it run into a limit."""
    words = ("broke", "closed the connection")
    return (
        isinstance(error, Unavailable)
        and error.operation == _OPERATION
        and any(w in error.cause for w in words)
    )


class _SourceFailed(Exception):
    """The source's own error, which is not tried again here."""

    def __init__(self, failure: SiteError) -> None:
        self.failure = failure


class _Refused(Exception):
    """The registry does not take a body sent as `record` would have it; `error` says how it said so."""

    def __init__(self, status: int, error: SiteError, record: CapabilityRecord) -> None:
        self.status = status
        self.error = error
        self.record = record


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
        self._cuts = 0
        self._chunk_bytes = 0
        self._whole_chunks = 0
        self._record = registry.knowledge.record

    async def run(self, origin: str | None) -> BlobOutcome:
        """Mounts or uploads; see `ports.Repository.write_blob`.

        Raises:
            SiteError: the source's own where that broke, else the registry's. Nothing is visible then, and the
                session is cancelled where the registry allows it, also after a cancellation.
        """
        try:
            if origin is not None and self._registry.knowledge.record.mount and await self._mount(origin):
                return "mounted"
            # Whoever hopes for a mount has not asked: a mount would have told.
            if origin is not None and await self._is_perhaps_there():
                await self._abandon()
                return "present"
            await retrying(self._attempt, ATTEMPTS, self._tell_retry, site=self._registry.transport.site)
        except _SourceFailed as error:
            await self._abandon()
            raise error.failure from None
        except BaseException:
            await self._abandon()
            raise
        await self._abandon()
        return "copied"

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
        request = partial(self._registry.transport.request, call)
        posting = asyncio.create_task(writing(self._registry, self._repository, request))
        try:
            return await asyncio.shield(posting)
        except asyncio.CancelledError:
            await self._registry.cleanups.run(self._take_back(posting))
            raise

    async def _take_back(self, posting: asyncio.Task[Reply]) -> None:
        try:
            reply = await posting
            if reply.status == 202:
                session = opened(self._registry, self._repository, reply)
                await cancel(self._registry, self._repository, session)
        except SiteError:
            return

    def _move(self, session: Session, reply: Reply) -> None:
        """Takes the newest Location. Where an answer has none (Quay's status), the last one stays good."""
        session.url = newest_location(self._registry, self._repository, reply) or session.url

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
        if (
            session is not None
            and session.doubtful
            and not (self._may_resume and await self._resume(session))
        ):
            if await self._is_perhaps_there():  # only the answer was lost: nothing is sent twice
                self._session = None
                return
            self._leave()
        while True:
            session = self._session = self._session or await self._start()
            if session is None:
                return
            try:
                await self._send(session)
            except _Refused as refused:
                self._leave()
                self._step_down(refused)
                continue
            except (AuthFailed, Throttled, Unavailable) as error:
                if await self._goes_on(error, session):
                    continue
                raise
            self._session = None
            return

    async def _goes_on(self, error: SiteError, session: Session) -> bool:
        """Whether a failure uses up no patience; else the session is left for the next attempt to judge."""
        if _was_cut(error):
            self._whole_chunks = 0
            if self._shrink():
                self._leave()
                return True
        if self._got_on(error, session):
            if not await self._resume(session):
                self._leave()
            return True
        self._failures += 1
        # AuthFailed that advises RETRY: the token ran out before the body was taken.
        # One that was refused for the load was not taken: the session is where it was.
        session.doubtful = error.advice is Advice.RETRY and not is_refusal(error)
        return False

    def _got_on(self, error: SiteError, session: Session) -> bool:
        """Whether chunks went up since the last failure: then this one uses up no patience."""
        if error.advice is not Advice.RETRY or is_refusal(error) or session.offset <= self._reached:
            return False
        self._reached = session.offset
        return True

    @property
    def _may_resume(self) -> bool:
        """Whether to ask how far a broken upload came. For a small one only every other time.

        Where every so-many-th connection dies, the same requests in the same order would meet that each time.
        """
        return self._failures % 2 == 1 or self._size is None or self._size > _SMALL_BYTES

    def _shrink(self) -> bool:
        """Whether to go on in chunks, or in smaller ones, since bodies as large as these are cut off.

        A proxy with a limit answers 413 and closes: what is left of that, as a rule, is a broken connection.
        """
        record = self._registry.knowledge.record
        self._cuts += 1
        if self._cuts < _CUTS or not record.chunk_bytes or self._size is None:
            return False
        before = self._chunk_bytes or min(4 * record.chunk_bytes, self._size)
        if before <= _MIN_CHUNK_BYTES:
            return False
        self._chunk_bytes = max(before // 4, _MIN_CHUNK_BYTES)
        self._whole_chunks = 0
        return True

    async def _resume(self, session: Session) -> bool:
        """Whether the session goes on, from the offset that the registry reports."""
        record = self._registry.knowledge.record
        if not record.resume or self._size is None:
            return False
        call = self._call("ask upload status", "GET", session.url, frozenset({200, 202, 204}))
        try:
            reply = await self._registry.transport.request(call)
            self._move(session, reply)
        except SiteError:
            return False
        offset = reported_offset(reply.headers, record.status_range)
        if offset is None or offset > self._size:
            return False
        session.offset, session.doubtful, session.resumed = offset, False, True
        return True

    def _step_down(self, refused: _Refused) -> None:
        """Notes for the whole site what was refused, so that the next blob does not run into it again.

        Raises the refusal where nothing else is left to try.
        """
        knowledge, record = self._registry.knowledge, refused.record
        if knowledge.record is not record:
            return  # another upload has found out meanwhile
        strategy = self._strategy(record)
        if refused.status == 413:  # a size, not a way: nginx before the registry, ACR
            most = record.chunk_bytes // 4 if strategy == "chunks" else (self._size or 0) // 2
            smaller = min(record.chunk_bytes, most)
            if smaller < _MIN_CHUNK_BYTES:
                raise refused.error
            knowledge.learn(body_limit=smaller, chunk_bytes=smaller)
        elif strategy == "put":
            knowledge.learn(upload="patch")
        elif strategy == "patch" and record.chunk_bytes and self._size is not None:
            knowledge.learn(upload="chunks")
        else:
            raise refused.error

    def _tell_retry(self, error: SiteError, wait: float) -> None:
        self._registry.events.emit(RetryPlanned(self._registry.site, _OPERATION, error.reason, wait))

    # --- sending --------------------------------------------------------------------------------------------

    def _strategy(self, record: CapabilityRecord) -> Strategy:
        if self._size is None:
            return "patch"
        if self._chunk_bytes:
            return "chunks"
        if record.chunk_bytes and record.body_limit and self._size > record.body_limit:
            return "chunks"
        return record.upload

    async def _send(self, session: Session) -> None:
        """Sends the bytes from the session's offset on and closes the session."""
        self._record = self._registry.knowledge.record
        strategy, size = self._strategy(self._record), self._size
        if size is not None and session.offset == size:
            await self._close(session)
        elif strategy == "chunks" and size is not None:
            await self._send_chunks(session, size)
            await self._close(session)
        elif strategy == "put" and not session.offset:
            url = with_digest(session.url, self._digest)
            reply = await self._body("PUT", url, partial(self._read, 0), size)
            await self._check_stored(reply)
        else:
            length = None if size is None else size - session.offset
            reply = await self._body("PATCH", session.url, partial(self._read, session.offset), length)
            self._move(session, reply)
            await self._close(session)

    async def _read(self, offset: int) -> AsyncGenerator[bytes, None]:
        """The source's bytes from `offset` on; the transport counts them."""
        async with self._source.open(offset) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _send_chunks(self, session: Session, size: int) -> None:
        """Sends chunk after chunk, cut from one reading of the source.

        The write slot is held for all of them: a reading that stays open holds its site's read slot, and must not wait
        for a write slot then (`flow.limits`).
        """
        async with self._registry.transport.uploads(size):
            while session.offset < size:
                # Opened by the first request for bytes, so that its failure is known for the source's.
                async with aclosing(self._read(session.offset)) as chunks:
                    cuts = Cuts(chunks, session.offset)
                    # An answer before all of a chunk was sent ends the reading: then another begins.
                    while cuts.position == session.offset < size:
                        await self._send_chunk(session, size, cuts)
        if self._chunk_bytes and self._whole_chunks > 1:
            self._registry.knowledge.learn(body_limit=self._chunk_bytes, chunk_bytes=self._chunk_bytes)

    async def _send_chunk(self, session: Session, size: int, cuts: Cuts) -> None:
        chunk_bytes = max(self._chunk_bytes or self._record.chunk_bytes, session.least_chunk)
        start, end = session.offset, min(session.offset + chunk_bytes, size)
        count = None if end == size else end - start  # the last one goes on, so that a surplus is noticed
        span = {"Content-Range": f"{start}-{end - 1}"}
        reply = await self._body(
            "PATCH", session.url, partial(cuts.next, count), end - start, span, within=True
        )
        # The reply's own Range is not believed: ECR and some zot versions report stale ones.
        self._move(session, reply)
        session.offset = end
        self._whole_chunks += 1

    async def _body(
        self,
        method: str,
        url: str,
        body: Callable[[], AsyncIterator[bytes]],
        length: int | None,
        headers: Mapping[str, str] | None = None,
        *,
        within: bool = False,
    ) -> Reply:
        """Sends a body and judges the answer; `within` a write slot that is held.

        Raises `_SourceFailed`, `_Refused`, `Unavailable` for a session that is lost, or the registry's error.
        """
        call = self._call(_OPERATION, method, url, _JUDGED, {**_OCTETS, **headers} if headers else _OCTETS)
        call = replace(call, blob_bytes=self._source.descriptor.size)
        try:
            reply = await self._registry.transport.upload(
                call, body, length, lambda: self._source.failure, within=within
            )
        except SiteError:
            self._raise_source_failure()
            raise
        if reply.status not in _DONE:
            raise self._judge(call, reply)
        return reply

    def _raise_source_failure(self) -> None:
        failure = self._source.failure
        if failure is not None:
            raise _SourceFailed(failure)

    def _judge(self, call: Call, reply: Reply) -> Exception:
        """What an unsuccessful answer means for the upload."""
        codes = frozenset(read_error(reply.body).codes)
        error = self._registry.transport.error(call, reply)
        session = self._session
        if reply.status == 416 or codes & _LOST:
            if session is not None:
                session.doubtful = True
            return self._error(Unavailable, f"the upload session was lost: {error.cause}")
        if codes & _FINAL:
            if session is not None and session.resumed:
                session.doubtful = True
                self._registry.knowledge.learn(resume=False)
                return self._error(Unavailable, f"resuming led to other content: {error.cause}")
            if "DIGEST_INVALID" in codes and algorithm(self._digest) != "sha256":
                # The source's bytes were hashed on their way: it is the algorithm that the registry does not know.
                learn(self._registry, "none")
                return self._error(Unsupported, no_sha512("none", self._digest))
            return error
        return _Refused(reply.status, error, self._record)

    async def _close(self, session: Session) -> None:
        """The closing PUT without a body; the transport repeats it with a fresh token where that ran out."""
        call = self._call("finish upload", "PUT", with_digest(session.url, self._digest), _JUDGED, _OCTETS)
        call = replace(call, commits=self._size or session.offset)
        reply = await self._registry.transport.request(call)
        if reply.status == 404 and await self._is_there():
            return  # the answer to an earlier try of this PUT was lost
        if reply.status not in _DONE:
            raise self._judge(call, reply)
        await self._check_stored(reply)

    async def _check_stored(self, reply: Reply) -> None:
        told = reply.headers.get("Docker-Content-Digest")
        if told is not None and not is_digest(told):
            told = None
        if told is not None and told != self._digest and told.startswith(algorithm(self._digest)):
            raise self._error(Corrupt, "it stored the blob under another digest")
        # 201 is the standard's answer and 204 Quay's; 200 and 202 may be a proxy's word for anything.
        if reply.status in {200, 202} and told is None and not await self._is_there():
            raise self._error(
                Unavailable, f"it answered {reply.status} to the upload but does not have the blob"
            )

    async def _is_perhaps_there(self) -> bool:
        """For saving an upload only: where it cannot be told, the upload will."""
        try:
            return await self._is_there()
        except SiteError:
            return False

    async def _is_there(self) -> bool:
        return await blob_exists(self._registry, self._repository, self._digest)

    def _call(
        self,
        operation: str,
        method: str,
        url: str,
        expected: frozenset[int],
        headers: Mapping[str, str] | None = None,
    ) -> Call:
        return Call(
            operation,
            method,
            url,
            repository=self._repository,
            actions="pull,push",
            headers=headers or {},
            expected=expected,
        )

    def _error(self, kind: type[SiteError], cause: str) -> SiteError:
        return kind(self._registry.site, _OPERATION, cause, repository=self._repository)
