"""Reads members of untrusted payloads."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any, Final

import msgspec

from replicator.model.digest import is_digest
from replicator.model.names import is_repository, is_tag
from replicator.model.strictjson import check_names
from replicator.notifications.format import Hint

_BARE_OFFSET: Final = re.compile(r"([+-]\d\d)(\d\d)$")


def member(value: Any, *path: str) -> Any:
    """The value at this path; None if part of the path is missing or not an object.

    Raises:
        ValueError: an object on the path has a member twice, or one whose name differs only by case.
    """
    for name in path:
        if not isinstance(value, dict):
            return None
        check_names(value, {name.casefold(): name}, "the event")
        value = value.get(name)
    return value


def text(value: Any, *path: str) -> str | None:
    """The string at this path; None if it is missing, empty or not a string. Raises ValueError as `member` does."""
    found = member(value, *path)
    return found if isinstance(found, str) and found else None


def has(value: Any, *names: str) -> bool:
    """Whether the value is an object with all of these members."""
    return isinstance(value, dict) and all(name in value for name in names)


def epoch(value: Any) -> float | None:
    """Epoch seconds of a number, or of an RFC 3339 time with up to nine decimals (Go) or a bare `+0000` (Java).

    None for anything else, for times without a zone, and for times before 1970 (Go writes year 1 for an unset time).
    """
    if isinstance(value, str):
        try:
            at = msgspec.convert(_BARE_OFFSET.sub(r"\1:\2", value), dt.datetime)
            value = at.timestamp() if at.tzinfo else None
        except (msgspec.ValidationError, ValueError, OverflowError):
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if 0 < value < 1e11 else None


def pushed(
    repository: str | None,
    tag: str | None,
    *,
    at: float | None = None,
    digest: str | None = None,
    registry: str | None = None,
    alias: str | None = None,
) -> Hint | None:
    """The push of a tag, or of a manifest by its digest; None without a valid repository and one of these.

    `tag` may be a digest, as some registries send it. What was pushed by digest may refer to an image.
    """
    tag = tag or digest
    digest = tag if tag and is_digest(tag) else digest
    if (
        repository is None
        or not is_repository(repository)
        or tag is None
        or not (is_tag(tag) or is_digest(tag))
    ):
        return None
    return Hint(
        repository,
        tag,
        at,
        digest if digest and is_digest(digest) else None,
        registry.lower() if registry else None,
        alias if alias and is_repository(alias) else None,
    )


def split_reference(reference: str | None) -> tuple[str | None, str | None, str | None]:
    """Host, repository and tag or digest of `HOST/REPOSITORY[:TAG|@DIGEST]`; None for each missing part."""
    host, slash, rest = (reference or "").removeprefix("https://").partition("/")
    if not slash:
        return None, None, None
    name, at, last = rest.partition("@")
    if not at:
        name, _, last = rest.partition(":")
    return host or None, name or None, last or None
