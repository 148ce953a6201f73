"""CNCF distribution 2 and 3: an envelope of events.

https://distribution.github.io/distribution/about/notifications/
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from replicator.model.digest import is_digest
from replicator.model.names import is_repository, is_tag
from replicator.notifications.format import JSON, Delivery, Format, Hint
from replicator.notifications.reading import epoch, has, member, text


def _recognizes(delivery: Delivery) -> bool:
    return has(delivery.document, "events") and isinstance(delivery.document["events"], list | None)


def read(delivery: Delivery) -> Iterator[Hint | None]:
    """The events of an envelope.

    An event that is null or malformed is ignored by itself: distribution repeats a refused envelope forever, so the
    good events in it would never arrive.

    A push without a tag is ignored: it is a blob, a child of an index or a referrer. What leads to it, a tag or the
    fallback tag of what it refers to, is pushed after it. A deletion by digest names no tag, so it concerns the whole repository.
    Who pushed makes no difference: in a chain of sites it is an agent, and the next site follows it.
    """
    return map(_judge, member(delivery.document, "events") or ())


def _judge(event: Any) -> Hint | None:
    try:
        action, at = text(event, "action"), epoch(text(event, "timestamp"))
        repository, tag = text(event, "target", "repository"), text(event, "target", "tag")
        digest = text(event, "target", "digest")
    except ValueError:
        return None
    if repository is None or not is_repository(repository) or (tag and not is_tag(tag)):
        return None
    if action == "push" and tag:
        return Hint(repository, tag, at, digest if digest and is_digest(digest) else None, _host(event))
    if action == "delete":
        return Hint(repository, tag, at, None, _host(event))
    return None


def _host(event: Any) -> str | None:
    try:
        host = text(event, "request", "host")
    except ValueError:
        return None
    return host and host.lower()


def _anything(named: str, url: str) -> bool:  # noqa: ARG001 - the signature of `Format.is_same`
    """`request.host` is the client's `Host` header, which may be any name or address of the registry."""
    return True


FORMAT: Final = Format(
    "distribution",
    _recognizes,
    read,
    media_types=JSON
    | {
        "application/vnd.docker.distribution.events.v1+json",
        "application/vnd.docker.distribution.events.v2+json",
    },
    is_same=_anything,
    redelivers=True,
)
