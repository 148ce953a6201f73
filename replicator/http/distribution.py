"""How a registry reads requests and words refusals: what `serve` and `demo` share. OCI distribution-spec 1.1."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlencode

from aiohttp import web

from replicator.model.digest import Digest, parse_digest
from replicator.model.names import is_repository

_MAX_ECHO: Final = 150
_STATUS: Final[Mapping[str, int]] = {
    "BLOB_UNKNOWN": 404,
    "BLOB_UPLOAD_UNKNOWN": 404,
    "MANIFEST_UNKNOWN": 404,
    "NAME_UNKNOWN": 404,
    "RANGE_INVALID": 416,
    "SIZE_INVALID": 413,
    "UNAUTHORIZED": 401,
}
"""Status of an error code; 400 where not listed."""


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
    """The response. A manifest that refers to several unknown blobs gets an error for each, as distribution answers."""
    details = [refused.detail]
    if refused.code == "MANIFEST_BLOB_UNKNOWN" and isinstance(refused.detail, list | tuple):
        details = [{"digest": digest} for digest in refused.detail]
    errors = [{"code": refused.code, "message": refused.message, "detail": detail} for detail in details]
    return web.json_response({"errors": errors}, status=refused.status, headers=refused.headers)


def repository_in(request: web.Request) -> str:
    """The repository in the path. Raises `Refused` (NAME_INVALID)."""
    name = request.match_info["name"]
    if not is_repository(name):
        raise Refused("NAME_INVALID", "invalid repository name", {"name": echoed(name)})
    return name


def digest_in(text: str) -> Digest:
    """The text as a digest. Raises `Refused` (DIGEST_INVALID)."""
    try:
        return parse_digest(text)
    except ValueError as error:
        raise Refused("DIGEST_INVALID", str(error), {"digest": echoed(text)}) from None


def count_in(request: web.Request, most: int) -> int:
    """How many names the page may have, at most `most`. Raises `Refused` (PAGINATION_NUMBER_INVALID)."""
    text = request.query.get("n", str(most))
    if not (text.isascii() and text.isdecimal()):
        raise Refused("PAGINATION_NUMBER_INVALID", "n is a number, 0 or more", {"n": echoed(text)})
    return min(int(text), most) if len(text) <= len(str(most)) else most


def page_of(names: Sequence[str], count: int, request: web.Request) -> tuple[Sequence[str], dict[str, str]]:
    """The page of sorted names that is asked for, and the headers that lead to the next."""
    start = bisect_right(names, request.query.get("last", ""))
    page = names[start : start + count]
    if not page or start + count >= len(names):
        return page, {}
    query = urlencode({"n": count, "last": page[-1]})
    return page, {"Link": f'<{request.path}?{query}>; rel="next"'}


def echoed(text: str) -> str:
    """What a client sent, short enough to be repeated to it."""
    return text[:_MAX_ECHO]
