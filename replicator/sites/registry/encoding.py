"""Bodies that come compressed though `Accept-Encoding: identity` was sent, as some proxies do to JSON."""

from __future__ import annotations

import zlib
from typing import Final

_GZIP: Final = frozenset({"gzip", "x-gzip"})
_MAGIC: Final = b"\x1f\x8b"
_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS


def decoded(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """The body as it was before a proxy encoded it; as it is where it is not gzip in truth.

    Args:
        body: as it came.
        encoding: the Content-Encoding.
        max_bytes: more decoded bytes than these are refused, without being made.

    Raises:
        ValueError: it ends early, is damaged or too long, or is of an encoding that is not read. For a person.
    """
    if not encoding:
        return body
    name = encoding.strip().lower()
    if name in {"", "identity"} or (name in _GZIP and not body.startswith(_MAGIC)):
        return body
    if name not in _GZIP:
        raise ValueError(f"the answer has Content-Encoding {name[:40]!r}, which was not asked for")
    decoder = zlib.decompressobj(_GZIP_WINDOW)
    try:
        data = decoder.decompress(body, max_bytes + 1)
    except zlib.error:
        raise ValueError("the answer is damaged gzip, which was not asked for") from None
    if len(data) > max_bytes:
        raise ValueError(f"the answer is longer than the {max_bytes} bytes allowed once its gzip is undone")
    if not decoder.eof:
        raise ValueError("the answer is gzip, which was not asked for, and ends early")
    return data
