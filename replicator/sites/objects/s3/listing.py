"""Listings of a bucket, page by page, bounded however long the bucket says that they go on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from replicator.errors import Corrupt
from replicator.ports import ObjectInfo, ObjectPage
from replicator.sites.bounds import EMPTY_PAGES, FREE_PAGES, LEAST_NAMES_PER_PAGE, MAX_PAGES
from replicator.sites.objects.s3.bucket import Bucket, Step


async def pages(
    bucket: Bucket, step: Step, parameters: dict[str, Any], skip: int
) -> AsyncIterator[ObjectPage]:
    """The pages that have something; `skip` characters of each key are the prefix of the site.

    Raises:
        Corrupt: an entry is not one, or the listing does not end.
        SiteError: see `errormap`.
    """
    empty = entries = 0
    tokens: set[str] = set()
    for number in range(MAX_PAGES):
        reply = await bucket.ask(step, "list_objects_v2", **parameters)
        try:
            page = page_of(reply, skip)
        except ValueError as error:
            raise Corrupt(bucket.place.site, step.operation, str(error)) from None
        empty = 0 if page.objects or page.prefixes else empty + 1
        entries += len(page.objects) + len(page.prefixes)
        if not empty:
            yield page
        if not reply.get("IsTruncated"):
            return
        token = reply.get("NextContinuationToken")
        if not token or token in tokens:
            raise Corrupt(bucket.place.site, step.operation, "the listing says it goes on, but not where")
        tokens.add(token)
        if empty > EMPTY_PAGES or (number > FREE_PAGES and entries < LEAST_NAMES_PER_PAGE * number):
            break
        parameters["ContinuationToken"] = token
    raise Corrupt(bucket.place.site, step.operation, "the listing does not end")


def page_of(reply: Mapping[str, Any], skip: int) -> ObjectPage:
    """The page of a reply. Raises `ValueError` for an entry that lacks a member or has one twice."""
    try:
        return ObjectPage(
            [
                ObjectInfo(
                    found["Key"][skip:], found["Size"], found["ETag"], found["LastModified"].timestamp()
                )
                for found in reply.get("Contents", ())
                if not found["Key"].endswith("/")
            ],
            [found["Prefix"][skip:].removesuffix("/") for found in reply.get("CommonPrefixes", ())],
        )
    except KeyError as error:
        raise ValueError(f"an entry of the listing has no {error.args[0]}") from None
    except (AttributeError, TypeError):  # botocore makes a list of what is there twice
        raise ValueError("an entry of the listing has a member twice") from None
