"""Copies that the store makes itself: no payload passes through us."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

from replicator.sites.objects.keys import shown
from replicator.sites.objects.s3.bucket import Bucket, Step
from replicator.sites.objects.s3.upload import MAX_PARTS

T = TypeVar("T")

MAX_COPY_BYTES: Final = 5_000_000_000
"""CopyObject takes 5 GB (AWS says GB and does not say which; this is the smaller)."""
PART_BYTES: Final = 512 << 20
_AT_ONCE: Final = 4


async def copy_object(
    bucket: Bucket,
    key: str,
    source: Mapping[str, Any],
    *,
    size: int,
    extra: Mapping[str, Any],
    whole_bytes: int,
) -> Mapping[str, Any]:
    """Has the store copy an object into the bucket; returns its answer, which may have checksums of what it wrote.

    Args:
        bucket: where to.
        key: as what, in full.
        source: CopySource and CopySourceIfMatch, so that it cannot be another object by now.
        size: of the source.
        extra: what goes with everything that is written.
        whole_bytes: up to here in one request, above by parts.
    """
    step = Step("copy object", shown("copy object", key), "writes", holds_slot=True)
    writing = replace(step, wait="commit", commits=min(size, MAX_COPY_BYTES))
    if size <= whole_bytes:
        copied = await bucket.ask(writing, "copy_object", Key=key, **source, **extra)
        return copied.get("CopyObjectResult") or {}
    created = asyncio.create_task(_create(bucket, step, key, extra))
    try:
        upload_id = await asyncio.shield(created)
        part_bytes = max(min(PART_BYTES, whole_bytes), -(-size // MAX_PARTS))
        starts = range(0, size, part_bytes)
        limit = asyncio.Semaphore(_AT_ONCE)

        async def copy_part(number: int, start: int) -> dict[str, Any]:
            async with limit:
                reply = await bucket.ask(
                    writing,
                    "upload_part_copy",
                    Key=key,
                    UploadId=upload_id,
                    PartNumber=number,
                    CopySourceRange=f"bytes={start}-{min(start + part_bytes, size) - 1}",
                    **source,
                )
            return {"PartNumber": number, "ETag": reply["CopyPartResult"]["ETag"]}

        parts = await _all([copy_part(number, start) for number, start in enumerate(starts, 1)])
        completed: Mapping[str, Any] = await bucket.ask(
            replace(writing, commits=size),
            "complete_multipart_upload",
            Key=key,
            UploadId=upload_id,
            MultipartUpload={"Parts": parts},
        )
    except BaseException:
        await bucket.clean_up(_abort(bucket, step, key, created))
        raise
    return completed


async def _create(bucket: Bucket, step: Step, key: str, extra: Mapping[str, Any]) -> str:
    return str((await bucket.ask(step, "create_multipart_upload", Key=key, **extra))["UploadId"])


async def _abort(bucket: Bucket, step: Step, key: str, created: asyncio.Task[str]) -> None:
    await bucket.ask(step, "abort_multipart_upload", Key=key, UploadId=await created)


async def _all(calls: Sequence[Coroutine[Any, Any, T]]) -> Sequence[T]:
    """The results of all; the first failure ends the others and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call) for call in calls]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]
