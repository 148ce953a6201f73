"""Queries as people write them: words, and conditions `key:value`."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from typing import Final

import msgspec

from replicator.ports.search import Query

KEYS: Final = {
    "repo": "glob of the repository's name",
    "tag": "glob of the tag",
    "digest": "digest of the image, or its beginning",
    "layer": "digest of a layer, or its beginning",
    "platform": "OS/ARCHITECTURE[/VARIANT]",
    "label": "KEY or KEY=GLOB: a label or annotation",
    "type": "glob of the artifact type",
    "before": "created before this date (2026-11-28 or RFC 3339)",
    "after": "created at this date or later",
    "site": "only tags at this destination",
}
_HEX: Final = re.compile(r"(?:sha256:|sha512:)?([0-9a-f]{4,128})")
_DIGEST: Final = re.compile(r"sha(?:256|512):[0-9a-f]{4,128}")


def parse_query(texts: Sequence[str]) -> Query:
    """The query of some words.

    Raises:
        ValueError: a key is not known, or its value is wrong; says what would be right.
    """
    query, words, labels = Query(), [], []
    for text in (word for each in texts for word in each.split()):
        key, colon, value = text.partition(":")
        if _DIGEST.fullmatch(text):
            query = msgspec.structs.replace(query, digest=_hex("digest", text))
        elif not colon or "/" in key or not key.isalpha():
            words.append(text)
        elif key not in KEYS:
            raise ValueError(f"{text!r}: {key} is not a key; known are {', '.join(KEYS)}")
        elif not value:
            raise ValueError(f"{text!r}: a value is expected: {KEYS[key]}")
        elif key == "label":
            name, equals, pattern = value.partition("=")
            labels.append((name, pattern if equals else "*"))
        else:
            query = msgspec.structs.replace(query, **_condition(key, value))
    return msgspec.structs.replace(query, words=tuple(words), labels=tuple(labels))


def _condition(key: str, value: str) -> dict[str, object]:
    match key:
        case "digest" | "layer":
            return {key: _hex(key, value)}
        case "before" | "after":
            return {key: _moment(key, value)}
        case "platform":
            if not 2 <= len(value.split("/")) <= 3:
                raise ValueError(f"platform:{value}: expected {KEYS[key]}")
            return {"platform": value}
        case _:
            return {
                {"repo": "repository", "type": "artifact_type", "site": "destination"}.get(key, key): value
            }


def _hex(key: str, value: str) -> str:
    match = _HEX.fullmatch(value)
    if match is None:
        raise ValueError(f"{key}:{value}: expected at least 4 lower-case hexadecimal digits")
    return match[1]


def _moment(key: str, value: str) -> float:
    try:
        at = dt.datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(f"{key}:{value}: expected a date such as 2026-11-28") from None
    return (at if at.tzinfo else at.replace(tzinfo=dt.UTC)).timestamp()
