"""Gitea and Forgejo: the event `package`. The versions of a container are its tags and digests.

https://docs.gitea.com/usage/webhooks
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from replicator.notifications.format import Delivery, Format, Hint, Signature
from replicator.notifications.reading import epoch, has, member, pushed, text

_HEADERS: Final = frozenset({"x-gitea-event", "x-forgejo-event"})


def _recognizes(delivery: Delivery) -> bool:
    return not _HEADERS.isdisjoint(delivery.headers) or has(
        delivery.document.get("package"), "owner", "type", "name", "version"
    )


def _read(delivery: Delivery) -> Iterator[Hint | None]:
    document = delivery.document
    package = member(document, "package")
    owner, name = text(package, "owner", "login"), text(package, "name")
    if text(document, "action") != "created" or text(package, "type") != "container" or not owner or not name:
        yield None
        return
    yield pushed(
        f"{owner}/{name}".lower(),
        text(package, "version"),
        at=epoch(text(package, "created_at")),
        registry=_host(text(package, "html_url")),
    )


def _host(page: str | None) -> str | None:
    try:
        return urlsplit(page or "").netloc or None
    except ValueError:
        return None


FORMAT: Final = Format("gitea", _recognizes, _read, signature=Signature("X-Gitea-Signature", "sha256"))
