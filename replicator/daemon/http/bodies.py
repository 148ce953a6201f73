"""Reads bodies of requests, within bounds of size and time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec
from aiohttp import web

from replicator.daemon.http.problems import Problem

BODY_SECONDS: Final = 10.0
MAX_API_BYTES: Final = 64 * 1024

_T = TypeVar("_T")


async def read_body(
    request: web.Request, limit: int, on_read: Callable[[int], None] = lambda _: None
) -> bytes:
    """The body as it was sent. `on_read` gets the size of each piece, and may raise `Problem`.

    Raises:
        Problem: 413 above `limit` bytes, 415 if it is compressed, 408 if it takes too long, 400 if it is incomplete.
    """
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise Problem(415, "compressed bodies are not supported")
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    chunks = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.content.iter_any():
                on_read(len(chunk))
                chunks += chunk
                if len(chunks) > limit:
                    raise _too_large(limit)
    except TimeoutError:
        raise Problem(408, f"the body did not arrive within {BODY_SECONDS:.0f} s") from None
    except (web.RequestPayloadError, ConnectionError):
        raise Problem(400, "the body is incomplete") from None
    return bytes(chunks)


async def read_json(request: web.Request, kind: type[_T]) -> _T:
    """The body as JSON of this type. Raises `Problem`, also 400 for other JSON."""
    body = await read_body(request, MAX_API_BYTES)
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(400, f"invalid body: {error}") from None


def _too_large(limit: int) -> Problem:
    return Problem(413, f"the body is larger than {limit} bytes", headers={"Connection": "close"})
