"""The shape of a kind of notification: how it is recognized and read, and how its sender authenticates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Final, Literal
from urllib.parse import urlsplit

import msgspec

from replicator.model.strictjson import Members

JSON: Final = frozenset({"application/json"})

MAX_EVENTS: Final = 20_000
"""Of one delivery. 1 MiB does not hold as many pushes of distribution; more are not what a registry sends."""


class Hint(msgspec.Struct, frozen=True):
    """A change in this repository: at this tag, or (None) anywhere in it. `at` in epoch seconds, None if unknown.

    A manifest that was pushed without a tag has its digest as `tag`.

    `digest` is what the tag names now, if it was pushed and the event has a digest. `registry` is the registry's name in
    the payload, usually its host; None if it is not named. `alias` is an alternative name of the repository, for
    registries whose URL does not decide between the two.
    """

    repository: str
    tag: str | None
    at: float | None
    digest: str | None
    registry: str | None = None
    alias: str | None = None


class Delivery(msgspec.Struct, frozen=True):
    """One request of a sender. `headers` are keyed by lower-case name; `document` is the body.

    `url` is the URL of the webhook's site, None if the site is not a registry.
    """

    headers: Mapping[str, str]
    document: Members
    url: str | None


class Signature(msgspec.Struct, frozen=True):
    """A hexadecimal HMAC over the body: its header and its hash."""

    header: str
    algorithm: Literal["sha256", "sha1"]


def same_host(named: str, url: str) -> bool:
    """Whether HOST[:PORT] of a payload is the host of the URL. Ports are compared only if both have one."""
    try:
        theirs, ours = urlsplit(f"//{named}"), urlsplit(url)
        ports = {theirs.port, ours.port} - {None}
    except ValueError:
        return False
    return theirs.hostname == ours.hostname and len(ports) < 2


class Format(msgspec.Struct, frozen=True):
    """One kind of notification.

    Args:
        kind: its name in the config (`webhook.NAME.kind`).
        recognizes: whether a delivery is of this kind. Never raises.
        read: yields the events of a delivery; None for an event to ignore (not a push of a tag). May raise ValueError if
            the whole delivery is malformed, which counts as one ignored event.
        media_types: accepted media types.
        signature: how the sender signs, if it can.
        secret_header: the sender's own header for a plain secret, if it has one.
        is_same: whether the registry's name in a payload belongs to the site with this URL.
        redelivers: the sender repeats refused deliveries endlessly, so a notification that names another registry is
            acknowledged.
    """

    kind: str
    recognizes: Callable[[Delivery], bool]
    read: Callable[[Delivery], Iterable[Hint | None]]
    media_types: frozenset[str] = JSON
    signature: Signature | None = None
    secret_header: str | None = None
    is_same: Callable[[str, str], bool] = same_host
    redelivers: bool = False


def read_events(each: Format, delivery: Delivery) -> list[Hint | None]:
    """The events of a delivery of this kind; None for each event to ignore.

    Raises:
        ValueError: it has more than `MAX_EVENTS`.
    """
    try:
        events = list(islice(each.read(delivery), MAX_EVENTS + 1))
    except ValueError:
        return [None]
    if len(events) > MAX_EVENTS:
        raise ValueError(f"more than {MAX_EVENTS} events")
    return events
