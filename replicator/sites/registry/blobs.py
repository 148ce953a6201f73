"""Reading blobs: from any offset, never more than was announced."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from types import TracebackType
from typing import Final

from msgspec.structs import replace

from replicator.errors import Advice, AuthFailed, Corrupt, Denied, Rejected, SiteError, Unavailable
from replicator.flow.patience import STALLED_READINGS
from replicator.flow.splice import Splice, Stream, pass_on
from replicator.model.descriptor import Descriptor
from replicator.model.digest import Digest, algorithm, digest_of
from replicator.ports import BlobSource, Chunk
from replicator.sites.registry.call import Call
from replicator.sites.registry.context import Registry
from replicator.sites.registry.page import web_page
from replicator.sites.registry.streaming import StreamReply

CHUNK_BYTES: Final = 1024 * 1024
_OPERATION: Final = "read blob"
_EXISTENCE: Final = frozenset({200, 400, 403, 404, 405, 412, 500, 501, 502, 504})
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")


async def blob_exists(registry: Registry, repository: str, digest: Digest) -> bool:
    """Whether the repository has the blob, by HEAD.

    404 is no. 403 and other refusals, a server's failure and a web page are "not known", thus no: the upload then
    tells (go-containerregistry). 307 and 308 are yes
    without following: distribution and its kin look before they sign a URL, and portals that redirect
    whatever is asked use 302. Redirects by other statuses are followed.
    """
    call = Call(
        "check blob",
        "HEAD",
        f"/v2/{repository}/blobs/{digest}",
        repository=repository,
        expected=_EXISTENCE | _REDIRECTS,
        follow=False,
        verified=True,
    )
    try:
        reply = await registry.transport.request(call)
    except (AuthFailed, Denied) as error:
        # Of this repository alone: Quay and Harbor, and token services, say so of missing ones.
        if error.advice is Advice.STOP_SITE:
            raise
        return False
    if reply.status in {301, 302, 303}:
        reply = await registry.transport.request(replace(call, expected=_EXISTENCE, follow=True))
    return reply.status in {200, 307, 308} and web_page(reply.headers, b"") is None


def open_blob(registry: Registry, repository: str, descriptor: Descriptor) -> BlobSource:
    """The blob as a source. Content that the descriptor itself carries (`data`) is not asked for."""
    inline = _inline(descriptor)
    if inline is not None:
        return InlineBlob(descriptor, inline)
    return RegistryBlob(registry, repository, descriptor)


class RegistryBlob:
    """A blob in a registry's repository. Each opening asks the registry anew, so that no signed URL gets stale."""

    def __init__(self, registry: Registry, repository: str, descriptor: Descriptor) -> None:
        self.descriptor = descriptor
        self.failure: SiteError | None = None
        self._registry = registry
        self._repository = repository

    def open(self, offset: int = 0) -> AbstractAsyncContextManager[AsyncIterator[Chunk]]:
        """The bytes from `offset` on; see `ports.BlobSource`.

        Raises `Corrupt` for more or fewer bytes than the descriptor says, `Unavailable` where the connection
        broke or may have broken.
        """
        return _Reading(self, offset)

    @asynccontextmanager
    async def open_range(
        self, start: int, stop: int
    ) -> AsyncGenerator[tuple[AsyncIterator[Chunk], int], None]:
        """See `ports.ReadsRanges`."""
        reading = _Reading(self, start, stop)
        async with reading as chunks:
            yield chunks, stop if reading.end is None else reading.end

    @property
    def parallel_reads(self) -> int | None:
        """See `ports.ReadsRanges`."""
        return self._registry.parallel_reads

    @property
    def bytes_per_second(self) -> float | None:
        """See `ports.ReadsRanges`."""
        return self._registry.transport.bytes_per_second

    async def whole(self) -> bytes:
        """All of it; see `ports.ReadsWhole`. Raises as the iteration does."""
        self.begin()
        size = self.descriptor.size or 0
        if size > self.max_bytes:
            raise self.too_large()
        if not size:
            return b""
        try:
            reply = await self._registry.transport.request(replace(self.call(0, None), max_bytes=size))
        except SiteError as error:
            raise self.failed(error) from None
        if len(reply.body) == size:
            return reply.body
        if "Content-Length" in reply.headers:
            raise self.corrupt(f"it ended after {len(reply.body)} of {size} bytes")
        return await self._rest(bytearray(reply.body), size)  # docs/quirks.md#blob-without-length

    async def _rest(self, data: bytearray, size: int) -> bytes:
        """The data with what is missing; asked for again where it breaks."""
        stalled = 0
        while len(data) < size:
            before = len(data)
            try:
                async with self.open(before) as chunks:
                    async for chunk in chunks:
                        data += chunk
            except Unavailable as error:
                stalled = 0 if len(data) > before else stalled + 1
                if stalled >= STALLED_READINGS or error.advice is not Advice.RETRY:
                    raise
        return bytes(data)

    def call(self, offset: int, stop: int | None) -> Call:
        """The request for the bytes from `offset` to `stop`, or all; it names the last one, where that is known.

        go-containerregistry's registry answers 416 to a range without an end.
        """
        size = self.descriptor.size
        end = size if stop is None else stop
        last = "" if end is None else end - 1
        is_part = offset > 0 or end != size
        return Call(
            _OPERATION,
            "GET",
            f"/v2/{self._repository}/blobs/{self.descriptor.digest}",
            repository=self._repository,
            headers={"Range": f"bytes={offset}-{last}"} if is_part else {},
            expected=frozenset({200, 206}) if is_part else frozenset({200}),
            verified=True,
            blob_bytes=size,
        )

    def stream(self, offset: int, stop: int | None) -> AbstractAsyncContextManager[StreamReply]:
        """Sends that request."""
        return self._registry.transport.stream(self.call(offset, stop))

    def failed(self, error: SiteError) -> SiteError:
        """Keeps the error as the reading's failure."""
        self.failure = error
        return error

    def begin(self) -> None:
        """Forgets an earlier reading's failure."""
        self.failure = None

    @property
    def max_bytes(self) -> int:
        """More is not read, whatever the descriptor says."""
        return self._registry.max_blob_bytes

    def too_large(self) -> SiteError:
        """Keeps and returns that it has more than `max_bytes`."""
        cause = f"{self.descriptor.digest} has more than {self.max_bytes} bytes (max_blob_bytes allows more)"
        return self.failed(Rejected(self._registry.site, _OPERATION, cause, repository=self._repository))

    def corrupt(self, cause: str) -> SiteError:
        """Keeps and returns what is wrong with the content."""
        return self.failed(Corrupt(self._registry.site, _OPERATION, cause, repository=self._repository))

    def broken(self, cause: str) -> SiteError:
        """Keeps and returns what may be only the connection's fault."""
        return self.failed(Unavailable(self._registry.site, _OPERATION, cause, repository=self._repository))


class _Reading:
    """One opening of a `RegistryBlob`, to `stop` or its end. `end`: where the bytes end that the answer has.

    A class and no generator function, so that an error of whoever reads, thrown inside the context, is not
    taken for the blob's own.
    """

    def __init__(self, blob: RegistryBlob, offset: int, stop: int | None = None) -> None:
        self.end = blob.descriptor.size if stop is None else stop
        self._stop = stop
        self._blob = blob
        self._offset = offset
        self._position = offset
        self._skip = 0
        self._stream: AbstractAsyncContextManager[StreamReply] | None = None

    async def __aenter__(self) -> AsyncIterator[Chunk]:
        blob, offset = self._blob, self._offset
        blob.begin()
        size = blob.descriptor.size
        if size is not None and size > blob.max_bytes:
            raise blob.too_large()
        if size is not None and offset >= size:
            return _pieces(b"")
        try:
            stream, reply = await self._ask()
        except SiteError as error:
            blob.failed(error)
            raise
        try:
            self._skip = self._dropped(reply)
        except BaseException as error:
            await stream.__aexit__(type(error), error, error.__traceback__)
            raise
        self._stream = stream
        self._position = offset - self._skip
        return Stream(self._chunks(reply), partial(self._splice, reply))

    async def _ask(self) -> tuple[AbstractAsyncContextManager[StreamReply], StreamReply]:
        """The answer from the offset on; from the start where the registry takes no such range (it need take none)."""
        stream = self._blob.stream(self._offset, self._stop)
        try:
            return stream, await stream.__aenter__()
        except Rejected as error:
            if error.status != 416 or not self._offset:
                raise
        stream = self._blob.stream(0, None)
        return stream, await stream.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            await self._stream.__aexit__(kind, error, trace)

    def _dropped(self, reply: StreamReply) -> int:
        """How many bytes to throw away: all before the offset where the range was ignored."""
        blob, offset, size = self._blob, self._offset, self._blob.descriptor.size
        if reply.status != 206:
            self.end = size
            return offset
        match = _CONTENT_RANGE.fullmatch(reply.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != offset or int(match[2]) < offset:
            raise blob.corrupt(f"asked for the bytes from {offset} on, got another range")
        if match[3] != "*" and size not in (None, int(match[3])):
            raise blob.corrupt(f"it has {match[3]} bytes, not {size} as its descriptor says")
        return 0

    async def _chunks(self, reply: StreamReply) -> AsyncIterator[Chunk]:
        blob, end = self._blob, self.end
        encoding = reply.headers.get("Content-Encoding", "identity")[:40]
        note = (
            ""
            if encoding == "identity"
            else f"; it came with Content-Encoding {encoding}, which was not asked for"
        )
        try:
            async for chunk in reply.chunks():
                self._position += len(chunk)
                if self._position > blob.max_bytes:
                    raise blob.too_large()
                if end is not None and self._position > end:
                    raise blob.corrupt(f"it has more than the {end} bytes that {self._says}{note}")
                skip, self._skip = self._skip, max(0, self._skip - len(chunk))
                if skip < len(chunk):
                    yield chunk[skip:] if skip else chunk
                del chunk  # its memory may be used again
        except SiteError as error:
            blob.failed(error)
            raise
        if end is not None and self._position < end:
            cause = f"it ended after {self._position} of {end} bytes{note}"
            if "Content-Length" in reply.headers and reply.status != 206:
                raise blob.corrupt(cause)
            # The body had no length, or is a part of the range: the rest can be requested
            # (docs/quirks.md#blob-without-length).
            raise blob.broken(cause)

    async def _splice(self, reply: StreamReply, splice: Splice) -> None:
        if self._skip or self.end is None:
            return
        splice.narrow(min(self.end, self._blob.max_bytes) - self._position)
        splice.count_with(self._count)
        await pass_on(reply, splice)

    @property
    def _says(self) -> str:
        return "its descriptor says" if self.end == self._blob.descriptor.size else "were asked for"

    def _count(self, count: int) -> None:
        self._position += count


class InlineBlob:
    """A blob whose content is in memory: its descriptor carries it, or it was read."""

    def __init__(self, descriptor: Descriptor, data: bytes) -> None:
        self.descriptor = descriptor
        self.failure: SiteError | None = None
        self._data = data

    async def whole(self) -> bytes:
        """All of it."""
        return self._data

    def open(self, offset: int = 0) -> AbstractAsyncContextManager[AsyncIterator[Chunk]]:
        """The bytes from `offset` on."""
        return _InlineReading(self._data[offset:])


class _InlineReading:
    def __init__(self, data: bytes) -> None:
        self._data = data

    async def __aenter__(self) -> AsyncIterator[Chunk]:
        return _pieces(self._data)

    async def __aexit__(self, *_: object) -> None:
        return None


async def _pieces(data: bytes) -> AsyncIterator[Chunk]:
    for start in range(0, len(data), CHUNK_BYTES):
        yield data[start : start + CHUNK_BYTES]


def _inline(descriptor: Descriptor) -> bytes | None:
    """The content in the descriptor, if it is the content that the descriptor names."""
    if descriptor.data is None:
        return None
    try:
        data = base64.b64decode(descriptor.data, validate=True)
    except (binascii.Error, ValueError):
        return None
    is_named = digest_of(data, algorithm(descriptor.digest)) == descriptor.digest
    return data if is_named and descriptor.size in (None, len(data)) else None
