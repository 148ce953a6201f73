"""Azure Container Registry: the actions of a webhook, including `ping`. Untagging sends no event.

https://learn.microsoft.com/azure/container-registry/container-registry-webhook-reference
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from replicator.notifications.format import Delivery, Format, Hint
from replicator.notifications.reading import epoch, has, pushed, text


def _recognizes(delivery: Delivery) -> bool:
    document = delivery.document
    return document.get("action") == "ping" or has(document, "action", "timestamp", "target", "request")


def _read(delivery: Delivery) -> Iterator[Hint | None]:
    document = delivery.document
    if text(document, "action") != "push":
        yield None
        return
    yield pushed(
        text(document, "target", "repository"),
        text(document, "target", "tag"),
        at=epoch(text(document, "timestamp")),
        digest=text(document, "target", "digest"),
        registry=text(document, "request", "host"),
    )


FORMAT: Final = Format("acr", _recognizes, _read)
