"""What registries tell on their own: CNCF distribution's envelopes, version 2 and 3. Pure.

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
    """Something changed in this repository, at this tag, or (None) anywhere in it; `at` in epoch seconds.

    `digest` is what the tag names now, where it was pushed and the event tells it.
    """

    repository: str
    tag: str | None
    at: float | None
    digest: str | None


class Target(msgspec.Struct, frozen=True):
    """What an event is about; a tag only where one was pushed or deleted."""

    repository: str = ""
    tag: str | None = None
    digest: str = ""


class Event(msgspec.Struct, frozen=True):
    """One thing that happened in a registry; what is not named here is passed over."""

    action: str = ""
    timestamp: str = ""
    target: Target = Target()


class Envelope(msgspec.Struct, frozen=True):
    """Events as they are sent."""

    events: list[Event]


def parse_notifications(body: bytes) -> Iterator[Hint | None]:
    """The events of an envelope, one by one: what to look at, or None for one that is passed over.

    A push without a tag is passed over: it is a blob, an index's child or a referrer, and what leads to it is pushed
    after it, or found by the next complete look. A deletion by digest tells no tag, so the whole repository counts.
    Who pushed makes no difference: in a chain of sites it is an agent, and the next site follows it.

    Raises:
        ValueError: it is no envelope.
    """
    try:
        envelope = msgspec.json.decode(body, type=Envelope)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"is no envelope of distribution's notifications: {error}") from None
    return (_judge(event) for event in envelope.events)


def _judge(event: Event) -> Hint | None:
    target = event.target
    if not is_repository(target.repository) or (target.tag and not is_tag(target.tag)):
        return None
    at = _time(event.timestamp)
    if event.action == "push" and target.tag:
        return Hint(target.repository, target.tag, at, target.digest if is_digest(target.digest) else None)
    if event.action == "delete":
        return Hint(target.repository, target.tag or None, at, None)
    return None


def _time(text: str) -> float | None:
    """RFC 3339, as Go writes it, with up to nine digits of a second's fraction; None for none, or Go's year 1."""
    try:
        at = msgspec.convert(text, dt.datetime).timestamp()
    except (msgspec.ValidationError, ValueError, OverflowError):
        return None
    return at if at > 0 else None
