"""Notifications of registries: the envelopes of CNCF distribution, version 2 and 3. Pure.

https://distribution.github.io/distribution/about/notifications/
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from replicator.model.digest import is_digest
from replicator.model.names import is_repository, is_tag

MEDIA_TYPES: Final = frozenset(
    {
        "application/vnd.docker.distribution.events.v1+json",
        "application/vnd.docker.distribution.events.v2+json",
        "application/json",
    }
)


@dataclass(frozen=True, slots=True)
class Hint:
    """A change in this repository: at this tag, or (None) anywhere in it. `at` in epoch seconds, None if unknown.

    `digest` is what the tag names now, if it was pushed and the event has a digest.
    """

    repository: str
    tag: str | None
    at: float | None
    digest: str | None


class Target(msgspec.Struct, frozen=True):
    """What an event is about. It has a tag only if one was pushed or deleted."""

    repository: str | None = None
    tag: str | None = None
    digest: str | None = None


class Event(msgspec.Struct, frozen=True):
    """One event of a registry. Other members are ignored."""

    action: str | None = None
    timestamp: str | None = None
    target: Target | None = None


class Envelope(msgspec.Struct, frozen=True):
    """Events as they are sent; the shape that the API's document shows."""

    events: list[Event] | None


class _Events(msgspec.Struct, frozen=True):
    """An envelope whose events are decoded one by one, so that one odd event does not spoil the others."""

    events: list[msgspec.Raw] | None


def parse_notifications(body: bytes) -> Iterator[Hint | None]:
    """The events of an envelope, one by one: what to scan, or None for an event that is ignored.

    An event that is null, or has members of other types, is ignored as well: distribution repeats a refused envelope
    for ever, and the good events in it would never arrive.

    A push without a tag is ignored: it is a blob, a child of an index or a referrer. What leads to it is pushed after
    it, or found by the next complete scan. A deletion by digest names no tag, so it concerns the whole repository.
    Who pushed makes no difference: in a chain of sites it is an agent, and the next site follows it.

    Raises:
        ValueError: the body is not an envelope.
    """
    try:
        envelope = msgspec.json.decode(body, type=_Events)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"is not an envelope of distribution's notifications: {error}") from None
    return (_judge(raw) for raw in envelope.events or ())


def _judge(raw: msgspec.Raw) -> Hint | None:
    try:
        event = msgspec.json.decode(raw, type=Event)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    target = event.target or Target()
    if target.repository is None or not is_repository(target.repository):
        return None
    if target.tag and not is_tag(target.tag):
        return None
    at = _time(event.timestamp)
    if event.action == "push" and target.tag:
        digest = target.digest if target.digest and is_digest(target.digest) else None
        return Hint(target.repository, target.tag, at, digest)
    if event.action == "delete":
        return Hint(target.repository, target.tag or None, at, None)
    return None


def _time(text: str | None) -> float | None:
    """Epoch seconds of an RFC 3339 time as Go writes it, with up to nine decimals; None if absent, or Go's year 1."""
    try:
        at = msgspec.convert(text, dt.datetime).timestamp()
    except (msgspec.ValidationError, ValueError, OverflowError):
        return None
    return at if at > 0 else None
