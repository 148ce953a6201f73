"""Sending the bytes of one blob into an upload session: in one PUT, one PATCH or chunks, as the registry takes them.

Sources: OCI distribution-spec, "Pushing blobs"; docs/quirks.md, "Uploads".
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from functools import partial
from typing import Final

from msgspec.structs import replace

from replicator.errors import Advice, AuthFailed, Corrupt, SiteError, Unavailable, Unsupported
from replicator.flow.splice import Splice, Stream, pass_on
from replicator.model.digest import algorithm, is_digest
from replicator.ports import BlobSource, Chunk
from replicator.sites.registry.algorithms import learn
from replicator.sites.registry.blobs import InlineBlob, blob_exists
from replicator.sites.registry.call import Call, Reply
from replicator.sites.registry.context import Registry
from replicator.sites.registry.cuts import Cuts
from replicator.sites.registry.errormap import read_error
from replicator.sites.registry.grants import MAX_GRANTS
from replicator.sites.registry.location import with_digest
from replicator.sites.registry.record import CapabilityRecord, Strategy
from replicator.sites.registry.refusals import no_sha512
from replicator.sites.registry.sessions import Session, move, session_call

OPERATION: Final = "upload blob"

_MIN_CHUNK_BYTES: Final = 64 * 1024
OCTETS: Final[Mapping[str, str]] = {"Content-Type": "application/octet-stream"}
_DONE: Final = frozenset({200, 201, 202, 204})
# What a request with a body may be answered without that being the end: the strategy or the session is to blame.
_JUDGED: Final = _DONE | {400, 404, 405, 411, 413, 416, 501}
_LOST: Final = frozenset(
    {"BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID", "RANGE_INVALID", "REQUESTED_RANGE_NOT_SATISFIABLE"}
)
_FINAL: Final = frozenset({"DIGEST_INVALID", "NAME_INVALID", "NAME_UNKNOWN", "DENIED", "SIZE_INVALID"})

_CHANCE: Final = 2
"""Fewer broken connections than this may be chance."""


class SourceFailed(Exception):
    """The source's own error, which is not tried again here."""

    def __init__(self, failure: SiteError) -> None:
        self.failure = failure


class BodyRefused(Exception):
    """The registry does not take a body sent as `record` would have it; `error` says how it said so."""

    def __init__(self, status: int, error: SiteError, record: CapabilityRecord) -> None:
        self.status = status
        self.error = error
        self.record = record


class BlobSender:
    """Sends the bytes of one blob into an upload session, in the way that the registry takes them; used once.

    Raises `SourceFailed`, `BodyRefused`, `Unavailable` for a session that is lost, or the registry's error.
    """

    def __init__(self, registry: Registry, repository: str, source: BlobSource) -> None:
        self._registry = registry
        self._repository = repository
        self._source = source
        self._digest = source.descriptor.digest
        self._size = source.descriptor.size
        self._cuts = 0
        self._chunk_bytes = 0
        self._whole_chunks = 0
        self._reading: AsyncIterator[Chunk] | None = None
        self._held: bytes | None = None
        self._record = registry.knowledge.record

    def hold(self, data: bytes) -> None:
        """Sends these bytes, which are the whole blob, verified, instead of reading the source."""
        self._source = InlineBlob(self._source.descriptor, data)
        self._held = data

    async def send(self, session: Session) -> None:
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
            if self._held is not None and self._registry.transport.sends_whole(url):
                reply = await self._whole(session, url, self._held)
            else:
                # A stream, also of bytes in memory: these aiohttp would send again, unasked, to a session that has taken a part.
                reply = await self._body(session, "PUT", url, partial(self._read, 0), size)
            await self.check_stored(reply)
        else:
            length = None if size is None else size - session.offset
            reply = await self._body(
                session, "PATCH", session.url, partial(self._read, session.offset), length
            )
            move(self._registry, self._repository, session, reply)
            await self._close(session)

    def shrink(self) -> bool:
        """Whether to go on in chunks, or in smaller ones, since bodies as large as these are cut off.

        A proxy with a limit answers 413 and closes: what is left of that, as a rule, is a broken connection.
        """
        record = self._registry.knowledge.record
        self._cuts += 1
        self._whole_chunks = 0
        if self._cuts < _CHANCE or not record.chunk_bytes or self._size is None:
            return False
        before = self._chunk_bytes or min(4 * record.chunk_bytes, self._size)
        if before <= _MIN_CHUNK_BYTES:
            return False
        self._chunk_bytes = max(before // 4, _MIN_CHUNK_BYTES)
        return True

    def step_down(self, refused: BodyRefused) -> None:
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

    def _strategy(self, record: CapabilityRecord) -> Strategy:
        if self._size is None:
            return "patch"
        if self._chunk_bytes:
            return "chunks"
        if record.chunk_bytes and record.body_limit and self._size > record.body_limit:
            return "chunks"
        return record.upload

    def _read(self, offset: int) -> Stream:
        """The source's bytes from `offset` on; the transport counts them. Opened by the first request for bytes."""
        return Stream(self._opened(offset), self._splice)

    async def _opened(self, offset: int) -> AsyncGenerator[Chunk, None]:
        async with self._source.open(offset) as chunks:
            self._reading = chunks
            try:
                async for chunk in chunks:
                    yield chunk
                    del chunk  # its memory may be used again
            finally:
                self._reading = None

    async def _splice(self, splice: Splice) -> None:
        await pass_on(self._reading, splice)

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
            session, "PATCH", session.url, partial(cuts.next, count), end - start, span, within=True
        )
        # The reply's own Range is not believed: ECR and some zot versions report stale ones.
        move(self._registry, self._repository, session, reply)
        session.offset = end
        self._whole_chunks += 1

    async def _body(
        self,
        session: Session,
        method: str,
        url: str,
        body: Callable[[], AsyncIterator[Chunk]],
        length: int | None,
        headers: Mapping[str, str] | None = None,
        *,
        within: bool = False,
    ) -> Reply:
        """Sends a body and judges the answer; `within` a write slot that is held.

        Raises `SourceFailed`, `BodyRefused`, `Unavailable` for a session that is lost, or the registry's error.
        """
        call = session_call(
            self._repository, OPERATION, method, url, _JUDGED, {**OCTETS, **headers} if headers else OCTETS
        )
        call = replace(call, blob_bytes=self._source.descriptor.size)
        try:
            reply = await self._registry.transport.upload(
                call, body, length, lambda: self._source.failure, within=within
            )
        except SiteError:
            self._raise_source_failure()
            raise
        if reply.status not in _DONE:
            raise self._judge(session, call, reply)
        return reply

    async def _whole(self, session: Session, url: str, data: bytes) -> Reply:
        """Sends a small blob as one small request and judges the answer; raises as `_body`."""
        call = session_call(self._repository, OPERATION, "PUT", url, _JUDGED, OCTETS)
        call = replace(call, body=data, blob_bytes=len(data), commits=len(data))
        reply = await self._with_new_tokens(session, call)
        if reply.status not in _DONE:
            raise self._judge(session, call, reply)
        return reply

    async def _with_new_tokens(self, session: Session, call: Call) -> Reply:
        """The reply to a small blob, which is sent again with the next token where one has ended: its bytes are in hand."""
        refused = 0
        while True:
            try:
                return await self._registry.transport.upload_whole(call)
            except AuthFailed as error:
                refused += 1
                if refused == MAX_GRANTS:
                    error.advice = Advice.GIVE_UP  # as for any other request: another session would not help
                if error.advice is not Advice.RETRY:
                    raise
            session.was_refused()

    def _raise_source_failure(self) -> None:
        failure = self._source.failure
        if failure is not None:
            raise SourceFailed(failure)

    def _judge(self, session: Session, call: Call, reply: Reply) -> Exception:
        """What an unsuccessful answer means for the upload."""
        codes = frozenset(read_error(reply.body).codes)
        error = self._registry.transport.error(call, reply)
        if reply.status == 416 or codes & _LOST:
            return self._error(Unavailable, f"the upload session was lost: {error.cause}")
        if codes & _FINAL:
            if session.history == "resumed":
                session.state = "spoilt"
                self._registry.knowledge.learn(resume=False)
                return self._error(Unavailable, f"resuming led to other content: {error.cause}")
            if session.history == "again" and "DIGEST_INVALID" in codes:
                session.state = "spoilt"
                return self._error(Unavailable, f"sending it again led to other content: {error.cause}")
            if "DIGEST_INVALID" in codes and algorithm(self._digest) != "sha256":
                # The source's bytes were hashed on their way: it is the algorithm that the registry does not know.
                learn(self._registry, "none")
                return self._error(Unsupported, no_sha512("none", self._digest))
            return error
        return BodyRefused(reply.status, error, self._record)

    async def _close(self, session: Session) -> None:
        """The closing PUT without a body; the transport repeats it with a fresh token where that ran out."""
        call = session_call(
            self._repository, "finish upload", "PUT", with_digest(session.url, self._digest), _JUDGED, OCTETS
        )
        call = replace(call, commits=self._size or session.offset)
        reply = await self._registry.transport.request(call)
        if reply.status == 404 and await blob_exists(self._registry, self._repository, self._digest):
            return  # the answer to an earlier try of this PUT was lost
        if reply.status not in _DONE:
            raise self._judge(session, call, reply)
        await self.check_stored(reply)

    async def check_stored(self, reply: Reply) -> None:
        """Raises `Corrupt` or `Unavailable` where an answer that says that the blob was stored is not to be believed."""
        told = reply.headers.get("Docker-Content-Digest")
        if told is not None and not is_digest(told):
            told = None
        if told is not None and told != self._digest and told.startswith(algorithm(self._digest)):
            raise self._error(Corrupt, "it stored the blob under another digest")
        # 201 is the standard's answer and 204 Quay's; 200 and 202 may be a proxy's word for anything. Before all bytes
        # had gone out, none of them can be of this upload.
        is_doubtful = reply.is_early or (reply.status in {200, 202} and told is None)
        if is_doubtful and not await blob_exists(self._registry, self._repository, self._digest):
            early = " before it had all of it" if reply.is_early else ""
            raise self._error(
                Unavailable, f"it answered {reply.status} to the upload{early} but does not have the blob"
            )

    def _error(self, kind: type[SiteError], cause: str) -> SiteError:
        return kind(self._registry.site, OPERATION, cause, repository=self._repository)
