"""Sonatype Nexus Repository 3: the event `component` of a repository webhook. It does not name the host.

https://help.sonatype.com/en/webhooks.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from replicator.notifications.format import Delivery, Format, Hint, Signature
from replicator.notifications.reading import epoch, has, member, pushed, text

_ACTIONS: Final = frozenset({"CREATED", "UPDATED"})


def _recognizes(delivery: Delivery) -> bool:
    document = delivery.document
    return "x-nexus-webhook-id" in delivery.headers or (
        "repositoryName" in document and (has(document.get("component"), "format") or "asset" in document)
    )


def _read(delivery: Delivery) -> Iterator[Hint | None]:
    """Events of assets are about files, not images, and are ignored."""
    document = delivery.document
    component = member(document, "component")
    if text(component, "format") != "docker" or text(document, "action") not in _ACTIONS:
        yield None
        return
    key, name = text(document, "repositoryName"), text(component, "name")
    # IMAGE with a port or host per repository, REPOSITORY/IMAGE with path-based routing
    yield pushed(
        name,
        text(component, "version"),
        at=epoch(text(document, "timestamp")),
        registry=key,
        alias=f"{key}/{name}",
    )


def _is_same(named: str, url: str) -> bool:
    """Only the URL of a site at `/repository/KEY` has its key."""
    _, has_key, key = urlsplit(url).path.partition("/repository/")
    return not has_key or key.strip("/").lower() == named


FORMAT: Final = Format(
    "nexus",
    _recognizes,
    _read,
    signature=Signature("X-Nexus-Webhook-Signature", "sha1"),
    is_same=_is_same,
)
