"""Queries as people write them: words, and conditions `key:value`."""

from __future__ import annotations

import datetime as dt
import difflib
import re
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from replicator.ports.search import Query

KEYS: Final = {
    "repo": "glob of the repository's name",
    "tag": "glob of the tag",
    "digest": "digest of the image, or its beginning",
    "layer": "digest of a layer, or its beginning",
    "platform": "OS/ARCHITECTURE[/VARIANT]",
    "label": "KEY or KEY=GLOB: a label of the image's config",
    "annotation": "KEY or KEY=GLOB: an annotation of a manifest",
    "type": "glob of the artifact type",
    "before": "created before this date (2026-11-28 or RFC 3339)",
    "after": "created at this date or later",
    "site": "only tags that this destination has or lacks",
}
_HEX: Final = re.compile(r"(?:sha256:|sha512:)?([0-9a-f]{4,128})")
_DIGEST: Final = re.compile(r"(?:(?P<name>[^@]+)@)?(?P<digest>sha(?:256|512):[0-9a-f]{4,128})")
_TOKEN: Final = re.compile(r'(?:"[^"]*"|[^\s"])+')
_TAG: Final = re.compile(r"(?=.*\d)[\w][\w.-]*|latest|stable|edge|main|master|nightly")
"""What follows a colon in a word that is an image's name: with a digit, or one of the moving tags that many use."""

_OTHER_NAMES: Final = {
    "created": "before or after",
    "since": "after",
    "newer": "after",
    "until": "before",
    "older": "before",
    "arch": "platform",
    "architecture": "platform",
    "os": "platform",
    "repository": "repo",
    "image": "repo",
    "name": "repo",
    "destination": "site",
    "missing": "--missing-at SITE",
    "artifact": "type",
    "sha": "digest",
}
"""What other searches call our keys, with ours."""
_TIMES: Final = frozenset({"created", "built", "pushed", "updated"})


class _Word(NamedTuple):
    """`is_quoted`: written in quotes from its beginning, so it is not a condition."""

    text: str
    is_quoted: bool


def parse_query(texts: Sequence[str]) -> Query:
    """The query of some words. Quotes keep spaces (`label:title="my app"`), and make a word of a condition (`"tag:x"`).

    `NAME:TAG` with a tag such as `1.25` or `latest`, URLs and `HOST:PORT/NAME` are words; anything else with a colon is a
    condition.

    Raises:
        ValueError: a key is not known or is there twice, or its value is wrong; says what would be right.
    """
    words: list[str] = []
    conditions: dict[str, str] = {}
    described: dict[str, list[tuple[str, str]]] = {"label": [], "annotation": []}
    for word in (word for text in texts for word in _words(text)):
        key, colon, value = word.text.partition(":")
        if word.is_quoted or not colon:
            words.append(word.text)
        elif found := _DIGEST.fullmatch(word.text):
            _once(conditions, "digest", found["digest"])
            words += [found["name"]] if found["name"] else []
        elif key not in KEYS:
            words.append(_literal(word.text))
        elif not value:
            raise ValueError(f"{word.text!r}: a value is expected: {KEYS[key]}")
        elif key in described:
            name, equals, pattern = value.partition("=")
            described[key].append((name, pattern if equals else "*"))
        else:
            _once(conditions, key, value)
    query = Query(
        words=tuple(words), labels=tuple(described["label"]), annotations=tuple(described["annotation"])
    )
    for key, value in conditions.items():
        query = msgspec.structs.replace(query, **_condition(key, value))
    return query


def _words(text: str) -> list[_Word]:
    """The words of a text; quotes may stand around one or around a part of it."""
    if text.count('"') % 2:
        raise ValueError(f"{text!r}: the last quotation mark has no partner")
    if not text.isprintable() and not text.split():
        return []
    if any(not char.isprintable() and not char.isspace() for char in text):
        raise ValueError(f"{text!r}: expected printable text")
    words = (_Word(found[0].replace('"', ""), found[0].startswith('"')) for found in _TOKEN.finditer(text))
    return [word for word in words if word.text]


def _once(conditions: dict[str, str], key: str, value: str) -> None:
    if conditions.setdefault(key, value) != value:
        raise ValueError(
            f"{key}:{value}: {key} is there twice, expected once: an image cannot match both, or write one glob"
        )


def _literal(text: str) -> str:
    """A word with a colon whose key is not ours: an image's name, a URL or a port.

    Raises:
        ValueError: it looks like a condition.
    """
    key, _, value = text.partition(":")
    if "/" in text and not _ours(key):
        return text
    if not key or (_TAG.fullmatch(value) and not _ours(key)):
        return text
    ours = _ours(key)
    raise ValueError(
        f"{text!r}: {key} is not a key{f', did you mean {ours}?' if ours else ';'}"
        f" known are {', '.join(KEYS)}. To find the text as it is, put it in quotes: '\"{text}\"'"
    )


def _ours(key: str) -> str | None:
    """The key of ours that was probably meant."""
    lower = key.lower()
    first, *rest = re.split(r"[-_.]", lower)
    if first in _TIMES and rest:  # created-after, but not label-studio, which is an image
        return rest[-1] if rest[-1] in KEYS else _OTHER_NAMES["created"]
    if lower in _OTHER_NAMES:
        return _OTHER_NAMES[lower]
    close = difflib.get_close_matches(lower, KEYS, n=1, cutoff=0.8)
    return close[0] if close else None


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
