"""The shape of every kind of notification: how it is recognised, read, and what its sender can sign."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlsplit

from replicator.model.strictjson import Members

JSON: Final = frozenset({"application/json"})


@dataclass(frozen=True, slots=True)
class Hint:
    """A change in this repository: at this tag, or (None) anywhere in it. `at` in epoch seconds, None if unknown.

    `digest` is what the tag names now, if it was pushed and the event has a digest. `registry` is what the payload calls
    the registry, mostly its host; None if it does not name it. `alias` is the repository's name if the site's URL does
    not tell which of two names it has.
    """

    repository: str
    tag: str | None
    at: float | None
    digest: str | None
    registry: str | None = None
    alias: str | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One request of a sender. `headers` by their lower-case names, `document` its body.

    `url` is that of the site that the webhook belongs to, None if that is not a registry.
    """

    headers: Mapping[str, str]
    document: Members
    url: str | None


@dataclass(frozen=True, slots=True)
class Signature:
    """A hexadecimal HMAC over the body: the header that has it, and its hash."""

    header: str
    algorithm: Literal["sha256", "sha1"]


def same_host(named: str, url: str) -> bool:
    """Whether a payload's HOST[:PORT] is the host of the URL. A port that only one of them has makes no difference."""
    try:
        theirs, ours = urlsplit(f"//{named}"), urlsplit(url)
        ports = {theirs.port, ours.port} - {None}
    except ValueError:
        return False
    return theirs.hostname == ours.hostname and len(ports) < 2


@dataclass(frozen=True, slots=True)
class Format:
    """One kind of notification.

    Args:
        kind: its name in the config (`webhook.NAME.kind`).
        recognises: whether a delivery is of this kind. Never raises.
        read: its events one by one, None for one that is ignored (no push of a tag). May raise ValueError where the
            whole delivery is odd, which counts as one ignored event.
        media_types: those of its bodies.
        signature: how the sender signs, if it can.
        secret_header: the header of its plain secret, if it has one of its own.
        is_same: whether what the payload calls the registry is the site of this URL.
        redelivers: the sender sends what was refused again and again, and others wait for it. So it is told that all is
            well even if the payload names another registry.
    """

    kind: str
    recognises: Callable[[Delivery], bool]
    read: Callable[[Delivery], Iterable[Hint | None]]
    media_types: frozenset[str] = JSON
    signature: Signature | None = None
    secret_header: str | None = None
    is_same: Callable[[str, str], bool] = same_host
    redelivers: bool = False
