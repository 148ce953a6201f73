"""How `serve` reads references, conditions and ranges. OCI distribution-spec 1.1, RFC 9110."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final
from urllib.parse import urlencode

import msgspec
from aiohttp import web

from replicator.http.distribution import Refused, digest_in, echoed
from replicator.model.descriptor import Descriptor
from replicator.model.digest import Digest
from replicator.model.names import is_tag

MAX_PAGE: Final = 10_000
"""Names on one page; a listing that goes on says so in `Link`."""

MAX_REFERRERS_BYTES: Final = 4 * 1024 * 1024
"""Of the entries on one page of referrers. cosign and crane read only the first page, others no more than 4 MiB."""

_RANGE: Final = re.compile(r"bytes=\s*(?:([0-9]{1,19})-([0-9]{0,19})|-([0-9]{1,19}))\s*", re.IGNORECASE)


def reference_in(request: web.Request) -> str:
    """The tag or digest in the path.

    Raises:
        Refused: DIGEST_INVALID; MANIFEST_UNKNOWN for what can be no tag, as it names nothing.
    """
    reference = request.match_info["reference"]
    if ":" in reference:
        return digest_in(reference)
    if not is_tag(reference):
        raise Refused("MANIFEST_UNKNOWN", "tag not found", {"tag": echoed(reference)})
    return reference


def referrers_page(
    found: Iterable[Descriptor], request: web.Request
) -> tuple[Sequence[Descriptor], dict[str, str]]:
    """The page of referrers that is asked for, in the order of their digests, and the headers that lead to the next.

    The next page begins after the digest `last`, so that pages fit together while referrers come and go.
    """
    last, size = request.query.get("last", ""), 0
    page: list[Descriptor] = []
    for one in sorted(found, key=lambda one: one.digest):
        if one.digest <= last:
            continue
        size += len(msgspec.json.encode(one)) + 1
        if page and size > MAX_REFERRERS_BYTES:
            query = {**request.query, "last": page[-1].digest}
            return page, {"Link": f'<{request.path}?{urlencode(query)}>; rel="next"'}
        page.append(one)
    return page, {}


def is_known(request: web.Request, digest: Digest) -> bool:
    """Whether `If-None-Match` names the digest, so that 304 is the answer.

    With or without quotes: docker sends none, and distribution takes both.
    """
    header = request.headers.get("If-None-Match", "")
    known = {part.strip().removeprefix("W/").strip('"') for part in header.split(",")}
    return "*" in known or digest in known


def range_in(request: web.Request, size: int, etag: str) -> tuple[int, int] | None:
    """First byte and the one after the last, of a blob of `size` bytes; None where all of it is wanted.

    A Range that we do not understand, one of several parts, and one whose `If-Range` names another content are
    ignored, as RFC 9110 (14.2, 13.1.5) allows and asks for.

    Raises:
        Refused: RANGE_INVALID, nothing of the blob is in the range.
    """
    match = _RANGE.fullmatch(request.headers.get("Range", ""))
    if match is None or request.headers.get("If-Range", etag) != etag:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        start, stop = max(size - int(suffix), 0), size
    else:
        start, stop = int(first), size
        if last:
            if int(last) < start:
                return None
            stop = min(int(last) + 1, size)
    if start >= stop:
        cause = f"nothing of {size} bytes is in that range"
        raise Refused("RANGE_INVALID", cause, headers={"Content-Range": f"bytes */{size}"})
    return start, stop
