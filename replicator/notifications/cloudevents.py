"""The envelope of CloudEvents 1.0 over HTTP, structured (in the body) and binary (in headers `ce-*`).

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from replicator.notifications.format import JSON, Delivery
from replicator.notifications.reading import text

MEDIA_TYPES: Final = JSON | {"application/cloudevents+json"}


class CloudEvent(msgspec.Struct, frozen=True):
    """One event. `data` is the sender's payload, of any type."""

    type: str
    source: str
    time: str | None
    data: Any


def event_type(delivery: Delivery) -> str:
    """The type of a CloudEvent, "" for any other delivery. Never raises."""
    binary = delivery.headers.get("ce-type")
    if binary is not None:
        return binary
    found = delivery.document.get("type") if "specversion" in delivery.document else None
    return found if isinstance(found, str) else ""


def cloud_event(delivery: Delivery) -> CloudEvent:
    """The event of a delivery with an `event_type`. Raises ValueError if a member is named twice."""
    headers, document = delivery.headers, delivery.document
    if "ce-type" in headers:
        return CloudEvent(headers["ce-type"], headers.get("ce-source", ""), headers.get("ce-time"), document)
    return CloudEvent(
        text(document, "type") or "",
        text(document, "source") or "",
        text(document, "time"),
        document.get("data"),
    )
