"""JSON and base64 that mean one thing to every reader, else are refused."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, Final

MAX_VALUES: Final = 200_000
"""Members and items of a document. A provenance statement of a large build has a few thousand."""

Members = dict[str, Any]


def _members(pairs: list[tuple[str, Any]]) -> Members:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("an object has the same member twice")
    return members


def _refuse(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


_decoder: Final = json.JSONDecoder(object_pairs_hook=_members, parse_constant=_refuse)


def read_strict(body: bytes, what: str) -> Members:
    """The body as a JSON object.

    Args:
        body: UTF-8, without a byte order mark.
        what: what it should be, for the message.

    Raises:
        ValueError: not a JSON object, a member named twice, nested too deep, or more than `MAX_VALUES` members and items.
    """
    if body.count(b",") + body.count(b"[") + body.count(b"{") > MAX_VALUES:
        raise ValueError(f"{what} has more than {MAX_VALUES} members and items")
    try:
        document = _decoder.decode(body.decode("utf-8"))
    except RecursionError:
        raise ValueError(f"{what} is nested too deep") from None
    except UnicodeDecodeError:
        raise ValueError(f"{what} is not UTF-8") from None
    except ValueError as error:
        raise ValueError(f"{what} is not valid JSON: {error}") from None
    return as_object(document, what)


def as_object(value: Any, what: str) -> Members:
    """The value, which must be an object. Raises ValueError."""
    if not isinstance(value, dict):
        raise ValueError(f"{what} is not an object")  # noqa: TRY004 - foreign content
    return value


def as_list(value: Any, what: str, most: int) -> list[Any]:
    """The value, which must be a list of at most `most` items; a missing one is empty. Raises ValueError."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise ValueError(f"{what} is not a list")  # noqa: TRY004 - foreign content
    if len(value) > most:
        raise ValueError(f"{what} has {len(value)} items, more than {most}")
    return value


def as_text(value: Any, what: str) -> str:
    """The value, which must be text. Raises ValueError."""
    if not isinstance(value, str):
        raise ValueError(f"{what} is missing or not text")  # noqa: TRY004 - foreign content
    return value


def as_bytes(value: Any, what: str) -> bytes:
    """The value, which must be standard base64. Raises ValueError."""
    try:
        return base64.b64decode(as_text(value, what), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError(f"{what} is not base64") from error
