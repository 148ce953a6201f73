"""A bucket, or what of it lies below a prefix, as an object store."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from typing import Any, Final

from replicator.errors import ConfigError, Corrupt, Denied, NotFound, Rejected, SiteError, Unsupported
from replicator.events import Events, Warned
from replicator.flow.limits import SiteLimits
from replicator.flow.retry import DEFAULT_BUDGET, Budget
from replicator.model.digest import Digest
from replicator.ports import Chunk, Clock, ObjectInfo, ObjectPage, ObjectStore, ObjectUpload
from replicator.sites.bounds import MAX_PAGES
from replicator.sites.objects.keys import check_prefix, parts_of, shown
from replicator.sites.objects.s3 import checksums, copying
from replicator.sites.objects.s3.bucket import Bucket, Step
from replicator.sites.objects.s3.listing import pages
from replicator.sites.objects.s3.upload import S3Upload, Spare
from replicator.sites.objects.settings import S3Settings
from replicator.sites.reading import Reading

STALE_SECONDS: Final = 24 * 3600.0
"""A multipart upload older than this is a dead run's: nothing tells a living one's from it but its age."""


class S3Store:
    """`ports.ObjectStore` on an S3-compatible bucket.

    Every writing is atomic, as the store makes it. Conditions are the store's own (`If-None-Match`, `If-Match`);
    the first of each kind is put to the proof, as some stores refuse them and some ignore them. From then on
    `conditional` is False there, one warning says so, and a condition is looked at before writing.

    Args:
        settings: the bucket.
        events: gets `RequestDone`, `RetryPlanned`, `Warned`, and of the gates `InFlight` and `LimitChanged`.
        clock: the time.
        budget: how often and how long each request is tried.
        whole_copy_bytes: the largest object that is copied in one request.
    """

    def __init__(
        self,
        settings: S3Settings,
        *,
        events: Events,
        clock: Clock,
        budget: Budget = DEFAULT_BUDGET,
        whole_copy_bytes: int = copying.MAX_COPY_BYTES,
    ) -> None:
        self._site = settings.name
        self._settings = settings
        self._events = events
        self._clock = clock
        self._whole_copy_bytes = whole_copy_bytes
        self._limits = SiteLimits(settings.name, settings.limits, events=events, clock=clock)
        self._bucket = Bucket(settings, limits=self._limits, events=events, clock=clock, budget=budget)
        self._root = f"{settings.prefix}/" if settings.prefix else ""
        self._extra = _extra(settings)
        self._spare = Spare()
        self._conditional = True
        self._proven: set[str] = set()

    @property
    def site(self) -> str:
        """The site's name."""
        return self._site

    @property
    def conditional(self) -> bool:
        """Whether the store honours conditions, as far as is known by now."""
        return self._conditional

    def set_bytes_per_second(self, rate: float | None) -> None:
        """See `ports.LimitsBytes`."""
        self._limits.set_bytes_per_second(rate)

    def limit_to(self, share: float) -> None:
        """See `ports.SharesLimits`."""
        self._limits.limit_to(share)

    async def stat(self, key: str) -> ObjectInfo | None:
        """See `ports.ObjectStore`."""
        step = Step("look at object", shown("look at object", key))
        found = await self._head(step, self._full(step, key))
        if found is None:
            return None
        return ObjectInfo(key, found["ContentLength"], found["ETag"], found["LastModified"].timestamp())

    async def _head(self, step: Step, full: str, **parameters: str) -> Mapping[str, Any] | None:
        try:
            head: Mapping[str, Any] = await self._bucket.ask(step, "head_object", Key=full, **parameters)
        except NotFound:
            return None
        except SiteError as error:
            if not isinstance(error, Denied | Rejected):
                raise
            # A HEAD's reply says only 403 or 400; a GET's says why (expired, denied, no such bucket).
            reply = await self._bucket.ask(step, "get_object", Key=full, Range="bytes=0-0")
            reply["Body"].close()
            raise
        return head

    async def get(self, key: str, max_bytes: int) -> tuple[bytes, str]:
        """See `ports.ObjectStore`."""
        step = Step("read object", shown("read object", key))
        return await self._small(step, self._full(step, key), max_bytes)

    async def _small(self, step: Step, full: str, max_bytes: int) -> tuple[bytes, str]:
        step = dataclasses.replace(step, kind="requests", holds_slot=True)

        async def get() -> tuple[bytes, str]:
            reply = await self._bucket.send(step, "get_object", Key=full)
            async with _closing(reply["Body"], self._chunks(step, reply["Body"])) as chunks:
                data = bytearray()
                size = reply.get("ContentLength", 0)
                if size <= max_bytes:
                    async for chunk in chunks:
                        data += chunk
                        if len(data) > max_bytes:
                            break
                    else:
                        return bytes(data), reply["ETag"]
            text = f"has {max(size, len(data))} bytes, more than the {max_bytes} allowed"
            raise Corrupt(self._site, step.operation, text)

        async with self._limits.slot_for("requests", step.operation):
            return await self._bucket.retried(step, get)

    @contextlib.asynccontextmanager
    async def read(
        self, key: str, offset: int = 0, *, size: int | None = None
    ) -> AsyncIterator[AsyncIterator[Chunk]]:
        """See `ports.ObjectStore`. An offset beyond the end is `Rejected`, one at the end reads nothing."""
        step = Step("read object", shown("read object", key), "reads", holds_slot=True, wait="first_byte")
        async with self._limits.slot_for("reads", step.operation, size=size):
            body = await self._opened(step, self._full(step, key), offset)
            async with _closing(body, self._blob(step, body, offset)) as chunks:
                yield chunks

    async def _blob(self, step: Step, body: Any, position: int) -> AsyncGenerator[Chunk, None]:
        async with contextlib.aclosing(self._chunks(step, body)) as chunks:
            async for chunk in chunks:
                position += len(chunk)
                if position > self._settings.max_blob_bytes:
                    text = f"more than {self._settings.max_blob_bytes} bytes (max_blob_bytes allows more)"
                    raise Rejected(self._site, step.operation, text)
                yield chunk

    async def _opened(self, step: Step, full: str, offset: int) -> Any:
        """The body of the reply; None where the offset is the end."""
        parameters = {"Range": f"bytes={offset}-"} if offset else {}
        try:
            reply = await self._bucket.ask(step, "get_object", Key=full, **parameters)
        except Rejected as error:
            if error.status != 416:
                raise
            found = await self._bucket.ask(step, "head_object", Key=full)
            if found["ContentLength"] != offset:
                text = f"from byte {offset}, but it has only {found['ContentLength']}"
                raise Rejected(self._site, step.operation, text) from None
            return None
        if offset and reply["ResponseMetadata"]["HTTPStatusCode"] != 206:
            reply["Body"].close()
            raise Unsupported(self._site, step.operation, "the store does not read from an offset")
        return reply["Body"]

    async def _chunks(self, step: Step, body: Any) -> AsyncGenerator[Chunk, None]:
        if body is None:
            return
        reading = Reading(body.raw_stream, self._settings.timeouts, small=False)
        while True:
            async with self._bucket.mapped(step):
                chunk = await reading.next()
            if not chunk:
                return
            await self._limits.pace_bytes(len(chunk))
            yield chunk

    async def put(
        self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None
    ) -> str | None:
        """See `ports.ObjectStore`.

        With a condition, None may also mean that it was written and the answer was lost: what was sent again then
        met itself. Reading again, as after any None, shows it.
        """
        step = Step("write object", shown("write object", key), wait="commit")
        full = self._full(step, key)
        await self._limits.pace_bytes(len(data))
        if if_absent:
            condition = {"IfNoneMatch": "*"}
        elif if_match is not None:
            condition = {"IfMatch": if_match}
        else:
            return await self._put(step, full, data)
        if self._conditional:
            with contextlib.suppress(Unsupported):
                return await self._put_if(step, full, data, condition)
            self._do_without_conditions("refuses")
        found = await self.stat(key)
        if (found.version if found else None) != if_match:
            return None
        return await self._put(step, full, data)

    async def _put(self, step: Step, full: str, data: bytes, **condition: str) -> str:
        reply = await self._bucket.ask(step, "put_object", Key=full, Body=data, **self._extra, **condition)
        return str(reply["ETag"])

    async def _put_if(self, step: Step, full: str, data: bytes, condition: Mapping[str, str]) -> str | None:
        kind = next(iter(condition))
        version = await self._put_once_if(step, full, data, condition)
        if kind in self._proven:
            return version
        if version is not None:
            # The same again must be refused now. Harmless where it is not: these bytes are what is there.
            again = await self._put_once_if(step, full, data, condition)
            if again is not None:
                self._do_without_conditions("ignores")
                return again
        self._proven.add(kind)
        return version

    async def _put_once_if(
        self, step: Step, full: str, data: bytes, condition: Mapping[str, str]
    ) -> str | None:
        try:
            return await self._put(step, full, data, **condition)
        except NotFound:
            return None  # nothing there to match
        except Rejected as error:
            if error.status != 412:
                raise
            return None

    def _do_without_conditions(self, verb: str) -> None:
        if self._conditional:
            self._conditional = False
            text = f"the store {verb} conditional writes: let only one agent write to {self._settings.bucket}"
            self._events.emit(Warned(self._site, text))

    @contextlib.asynccontextmanager
    async def upload(self, key: str, size: int | None) -> AsyncIterator[ObjectUpload]:
        """See `ports.ObjectStore` and `S3Upload`, which says how much memory it takes."""
        step = Step("", shown("write object", key))
        full = self._full(step, key)
        async with self._limits.slot_for("writes", step.operation, size=size):
            upload = S3Upload(self._bucket, full, size=size, extra=self._extra, spare=self._spare)
            try:
                yield upload
            finally:
                await upload.aclose()

    async def list(self, prefix: str, *, delimiter: bool = False) -> AsyncIterator[ObjectPage]:
        """See `ports.ObjectStore`. The markers that consoles make for empty folders are left out."""
        step = Step("list objects", shown("list objects", prefix))
        check_prefix(self._site, step.operation, prefix)
        parameters: dict[str, Any] = {"Prefix": self._root + prefix}
        if delimiter:
            parameters["Delimiter"] = "/"
        async for page in pages(self._bucket, step, parameters, len(self._root)):
            yield page

    async def copy(
        self, origin: ObjectStore, origin_key: str, key: str, *, digest: Digest | None = None
    ) -> bool:
        """See `ports.ObjectStore`: CopyObject, UploadPartCopy for large ones. See `checksums` for what is verified.

        One store is one endpoint with one identity. False also where it refuses to copy between the two buckets;
        what is wrong with ours then shows when we write there.
        """
        if not isinstance(origin, S3Store) or origin.identity is None or origin.identity != self.identity:
            return False
        try:
            await self._copy(origin, origin_key, key, digest)
        except (Denied, Unsupported):
            return False
        return True

    async def link(self, origin_key: str, key: str, *, digest: Digest | None = None) -> None:
        """See `ports.ObjectStore`: a copy that the store makes."""
        await self._copy(self, origin_key, key, digest)

    async def _copy(self, origin: S3Store, origin_key: str, key: str, digest: Digest | None) -> None:
        step = Step("copy object", shown("copy object", key))
        full = self._full(step, key)
        origin_full, found = await origin.located(origin_key)
        known = checksums.of_whole(found)
        wrong = checksums.contradicts(known, digest)
        if wrong is not None:
            raise Corrupt(origin.site, shown("read object", origin_key), wrong)
        async with self._limits.slot_for("writes", step.operation):
            written = await copying.copy_object(
                self._bucket,
                full,
                {"CopySource": origin_full, "CopySourceIfMatch": found["ETag"]},
                size=found["ContentLength"],
                extra=self._extra,
                whole_bytes=self._whole_copy_bytes,
            )
        wrong = checksums.differ(known, checksums.of_whole(written))
        if wrong is not None:
            await self.delete(key)
            raise Corrupt(self._site, step.operation, wrong)

    async def located(self, key: str) -> tuple[Mapping[str, str], Mapping[str, Any]]:
        """Bucket and full key of an object, and its HEAD, for a sibling that copies it. Raises `NotFound`."""
        step = Step("read object", shown("read object", key))
        full = self._full(step, key)
        found = await self._head(step, full, ChecksumMode="ENABLED")
        if found is None:
            raise NotFound(self._site, step.operation, "no such object")
        return {"Bucket": self._settings.bucket, "Key": full}, found

    @functools.cached_property
    def identity(self) -> tuple[str, str] | None:
        """Which store this is, and who we are there. None: cannot be told."""
        keys = self._settings.keys
        try:
            who = f"key {keys.access_key()}" if keys else f"profile {self._settings.profile or ''}"
        except ConfigError:
            return None
        return (self._settings.endpoint or "AWS").rstrip("/"), who

    async def delete(self, key: str) -> None:
        """See `ports.ObjectStore`."""
        step = Step("delete object", shown("delete object", key))
        with contextlib.suppress(NotFound):
            await self._bucket.ask(step, "delete_object", Key=self._full(step, key))

    async def sweep(self, is_ours: Callable[[str], bool], stale_seconds: float = STALE_SECONDS) -> None:
        """See `ports.ObjectStore`: aborts multipart uploads of our keys that are older than this.

        Others may keep theirs below the same prefix: a backup, or a registry that continues one after days.
        """
        step = Step("sweep", "sweep")
        parameters: dict[str, Any] = {"Prefix": self._root}
        for _ in range(MAX_PAGES):
            try:
                reply = await self._bucket.ask(step, "list_multipart_uploads", **parameters)
            except Unsupported:
                return
            for found in reply.get("Uploads", ()):
                if not is_ours(found["Key"].removeprefix(self._root)):
                    continue
                if self._clock.now() - found["Initiated"].timestamp() >= stale_seconds:
                    with contextlib.suppress(NotFound, Rejected):  # somebody else was faster
                        await self._bucket.ask(
                            step, "abort_multipart_upload", Key=found["Key"], UploadId=found["UploadId"]
                        )
            markers = (reply.get("NextKeyMarker", ""), reply.get("NextUploadIdMarker", ""))
            if not reply.get("IsTruncated") or markers == (
                parameters.get("KeyMarker"),
                parameters.get("UploadIdMarker"),
            ):
                return
            parameters |= {"KeyMarker": markers[0], "UploadIdMarker": markers[1]}

    async def aclose(self) -> None:
        """See `ports.ObjectStore`."""
        await self._bucket.aclose()

    def _full(self, step: Step, key: str) -> str:
        parts_of(self._site, step.operation, key)
        return self._root + key


@contextlib.asynccontextmanager
async def _closing(body: Any, chunks: AsyncGenerator[Chunk, None]) -> AsyncIterator[AsyncIterator[Chunk]]:
    """Closes both: a generator that was never begun does not close what it reads from."""
    try:
        async with contextlib.aclosing(chunks):
            yield chunks
    finally:
        if body is not None:
            body.close()  # one that was read to its end has given its connection back already


def _extra(settings: S3Settings) -> Mapping[str, str]:
    """What goes with everything that is written."""
    extra = {
        "ServerSideEncryption": settings.sse,
        "SSEKMSKeyId": settings.kms_key,
        "StorageClass": settings.storage_class,
        "ContentType": "application/octet-stream",  # as a registry's own driver writes
    }
    return {name: value for name, value in extra.items() if value}
