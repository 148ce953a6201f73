"""A large object being written, in parts."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from replicator.errors import Corrupt, Rejected
from replicator.flow.splice import Splice, pass_on
from replicator.model.digest import Digest
from replicator.ports import Chunk
from replicator.sites.objects.keys import shown
from replicator.sites.objects.s3.bucket import Bucket, Step

DEFAULT_PART_BYTES: Final = 8 << 20
MAX_PARTS: Final = 10_000
PARTS_AT_ONCE: Final = 3
SPARE_BUFFERS: Final = 16
_ROUND_BYTES: Final = 1 << 20


def part_bytes_for(size: int | None) -> int:
    """The size of each part but the last. Equal ones (R2 wants that), and no more than `MAX_PARTS` of them."""
    least = -(-(size or 0) // MAX_PARTS)
    return max(DEFAULT_PART_BYTES, -(-least // _ROUND_BYTES) * _ROUND_BYTES)


class Spare:
    """Part buffers of one store beyond the first of each upload.

    Nobody ever waits for one: an upload that gets none waits for its own part to be sent. Uploads that waited
    for each other's buffers while holding the source's read slots could wait for ever.
    """

    def __init__(self, count: int = SPARE_BUFFERS) -> None:
        self._left = count

    def take(self) -> bool:
        """Takes one if one is left."""
        if not self._left:
            return False
        self._left -= 1
        return True

    def give(self) -> None:
        """Gives one back."""
        self._left += 1


class _BufferEnd:
    """The end of a part's buffer as an outlet."""

    def __init__(self, buffer: io.BytesIO) -> None:
        self._buffer = buffer

    def offer(self, data: memoryview, seconds: float) -> memoryview:  # noqa: ARG002 - memory takes it at once
        """Nothing is left."""
        self._buffer.write(data)
        return data[:0]

    def abort(self) -> None:
        """Nothing to do: memory blocks nobody."""


class S3Upload:
    """`ports.ObjectUpload` on a bucket: a single PutObject if it fits one part, else a multipart upload.

    Up to `PARTS_AT_ONCE` parts are in progress at once. Memory holds one part of each upload and
    `SPARE_BUFFERS` of all uploads of the store together, whatever the objects' sizes. The multipart upload is
    completed by `commit` alone; `aclose` aborts any other, and gives up after a few seconds (then `sweep` finds it).
    """

    def __init__(
        self, bucket: Bucket, key: str, *, size: int | None, extra: Mapping[str, Any], spare: Spare
    ) -> None:
        self._bucket = bucket
        self._key = key
        self._size = size
        self._extra = extra
        self._spare = spare
        self._part_bytes = part_bytes_for(size)
        self._step = Step("write object", shown("write object", key), "writes", holds_slot=True)
        self._writing = replace(self._step, wait="commit")
        self._buffer = io.BytesIO()  # sent as it is: nothing is copied once more
        self._taken = 0
        self._creating: asyncio.Task[str] | None = None
        self._sending: set[asyncio.Task[None]] = set()
        self._spares = 0
        self._etags: dict[int, str] = {}
        self._parts = 0
        self._failure: BaseException | None = None
        self._done = False

    async def write(self, chunk: Chunk) -> None:
        """Takes the next bytes. Raises what a part's sending has raised meanwhile."""
        await self._bucket.limits.pace_bytes(len(chunk))
        self._raise_failure()
        view = memoryview(chunk)
        while view:
            # A full part goes out when more comes, so that what fits one part never becomes a multipart upload.
            if self._buffer.tell() == self._part_bytes:
                await self._send_buffer()
            count = self._buffer.write(view[: self._part_bytes - self._buffer.tell()])
            self._taken += count
            view = view[count:]

    async def splice(self, chunks: AsyncIterator[Chunk], narrow: Callable[[Splice], None]) -> None:
        """See `layouts.blobs.TakesSplices`: up to the end of a part. Not where bytes wait for their turn."""
        if self._bucket.limits.paces_bytes:
            return
        splice = Splice(_BufferEnd(self._buffer))
        splice.narrow(self._part_bytes - self._buffer.tell())
        narrow(splice)
        await pass_on(chunks, splice)
        self._taken += splice.count

    async def commit(self, digest: Digest | None = None) -> None:  # noqa: ARG002 - nothing is hashed later
        """Makes the object visible, whole.

        Raises:
            Corrupt: not the announced number of bytes came.
        """
        if self._size is not None and self._taken != self._size:
            text = f"{self._taken} bytes came instead of {self._size}"
            raise Corrupt(self._bucket.place.site, self._step.operation, text)
        if self._creating is None:
            await self._bucket.ask(
                self._writing, "put_object", Key=self._key, Body=self._buffer, **self._extra
            )
        else:
            await self._send_buffer()
            while self._sending:
                await asyncio.wait(self._sending, return_when=asyncio.FIRST_EXCEPTION)
                self._raise_failure()
            self._raise_failure()
            await self._complete(await self._creating)
        self._done = True

    async def aclose(self) -> None:
        """Ends the parts in progress; aborts an upload that was not committed."""
        for task in self._sending:
            task.cancel()
        if self._creating is not None and not self._done:
            await self._bucket.clean_up(self._abort(self._creating))

    async def _complete(self, upload_id: str) -> None:
        parts = [{"PartNumber": number, "ETag": self._etags[number]} for number in sorted(self._etags)]
        try:
            await self._bucket.ask(
                replace(self._writing, commits=self._taken),
                "complete_multipart_upload",
                Key=self._key,
                UploadId=upload_id,
                MultipartUpload={"Parts": parts},
            )
        except Rejected as error:
            # An earlier try may have been done though its answer was lost: then the upload is gone, the object there.
            if "NoSuchUpload" not in error.codes:
                raise
            found = await self._bucket.ask(self._step, "head_object", Key=self._key)
            if found["ContentLength"] != self._taken:
                raise

    async def _send_buffer(self) -> None:
        if self._parts == MAX_PARTS:
            text = f"more than {MAX_PARTS} parts of {self._part_bytes} bytes"
            raise Rejected(self._bucket.place.site, self._step.operation, text)
        if self._creating is None:
            # A task of its own: were this call cancelled half-way, nobody would know what to abort.
            self._creating = asyncio.create_task(self._create())
        upload_id = await asyncio.shield(self._creating)
        self._parts += 1
        data, self._buffer = self._buffer, io.BytesIO()
        task = asyncio.create_task(self._send(upload_id, self._parts, data))
        self._sending.add(task)
        task.add_done_callback(self._sent)
        await self._await_buffer()

    async def _await_buffer(self) -> None:
        """Returns when another buffer may be filled beside those in progress."""
        while len(self._sending) > self._spares:
            if len(self._sending) <= PARTS_AT_ONCE and self._spare.take():
                self._spares += 1
            else:
                await asyncio.wait(self._sending, return_when=asyncio.FIRST_COMPLETED)
                self._raise_failure()

    async def _create(self) -> str:
        reply = await self._bucket.ask(self._step, "create_multipart_upload", Key=self._key, **self._extra)
        return str(reply["UploadId"])

    async def _send(self, upload_id: str, number: int, data: io.BytesIO) -> None:
        reply = await self._bucket.ask(
            self._writing, "upload_part", Key=self._key, UploadId=upload_id, PartNumber=number, Body=data
        )
        self._etags[number] = reply["ETag"]

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        while self._spares > len(self._sending):
            self._spares -= 1
            self._spare.give()
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = self._failure or error

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    async def _abort(self, creating: asyncio.Task[str]) -> None:
        while self._sending:  # a part that arrives later than the abort would be kept, and paid for
            await asyncio.wait(self._sending)
        upload_id = await creating
        await self._bucket.ask(self._step, "abort_multipart_upload", Key=self._key, UploadId=upload_id)
