"""How requests are read and refusals are worded. OCI distribution-spec 1.1, RFC 9110."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlencode

from aiohttp import web

from replicator.model.digest import Digest, parse_digest
from replicator.model.names import is_repository, is_tag

MAX_PAGE: Final = 10_000
"""Names on one page; a listing that goes on says so in `Link`."""

_MAX_ECHO: Final = 150
_STATUS: Final[Mapping[str, int]] = {
    "BLOB_UNKNOWN": 404,
    "MANIFEST_UNKNOWN": 404,
    "NAME_UNKNOWN": 404,
    "RANGE_INVALID": 416,
    "UNAUTHORIZED": 401,
}
"""Status of an error code; 400 where not listed."""

_RANGE: Final = re.compile(r"bytes=\s*(?:([0-9]{1,19})-([0-9]{0,19})|-([0-9]{1,19}))\s*", re.IGNORECASE)


class Refused(Exception):
    """A request that gets an error in the distribution-spec's form."""

    def __init__(
        self,
        code: str,
        message: str,
        detail: object = None,
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.detail = detail
        self.status = status or _STATUS.get(code, 400)
        self.headers = dict(headers or {})


def refusal(refused: Refused) -> web.Response:
    """The answer that says so."""
    errors = [{"code": refused.code, "message": refused.message, "detail": refused.detail}]
    return web.json_response({"errors": errors}, status=refused.status, headers=refused.headers)


# --- what is asked for ---


def repository_in(request: web.Request) -> str:
    """The repository in the path. Raises `Refused` (NAME_INVALID)."""
    name = request.match_info["name"]
    if not is_repository(name):
        raise Refused("NAME_INVALID", "invalid repository name", {"name": name[:_MAX_ECHO]})
    return name


def digest_in(request: web.Request) -> Digest:
    """The digest in the path. Raises `Refused` (DIGEST_INVALID)."""
    return _digest(request.match_info["digest"])


def reference_in(request: web.Request) -> str:
    """The tag or digest in the path.

    Raises:
        Refused: DIGEST_INVALID; MANIFEST_UNKNOWN for what can be no tag, as it names nothing.
    """
    reference = request.match_info["reference"]
    if ":" in reference:
        return _digest(reference)
    if not is_tag(reference):
        raise Refused("MANIFEST_UNKNOWN", "no such tag", {"tag": reference[:_MAX_ECHO]})
    return reference


def _digest(text: str) -> Digest:
    try:
        return parse_digest(text)
    except ValueError as error:
        raise Refused("DIGEST_INVALID", str(error), {"digest": text[:_MAX_ECHO]}) from None


# --- conditions and ranges ---


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
    passed over, as RFC 9110 (14.2, 13.1.5) allows and asks for.

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


# --- pages ---


def count_in(request: web.Request) -> int:
    """How many names the page may have. Raises `Refused` (PAGINATION_NUMBER_INVALID)."""
    text = request.query.get("n", str(MAX_PAGE))
    if not (text.isascii() and text.isdecimal()):
        raise Refused("PAGINATION_NUMBER_INVALID", "n is a number, 0 or more", {"n": text[:_MAX_ECHO]})
    return int(text) if len(text) <= len(str(MAX_PAGE)) and int(text) <= MAX_PAGE else MAX_PAGE


def page_of(names: Sequence[str], count: int, request: web.Request) -> tuple[Sequence[str], dict[str, str]]:
    """The page of sorted names that is asked for, and the headers that lead to the next."""
    start = bisect_right(names, request.query.get("last", ""))
    page = names[start : start + count]
    if not page or start + count >= len(names):
        return page, {}
    query = urlencode({"n": count, "last": page[-1]})
    return page, {"Link": f'<{request.path}?{query}>; rel="next"'}
