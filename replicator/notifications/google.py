"""Google Artifact Registry and gcr.io: messages of the Pub/Sub topic `gcr`, wrapped or unwrapped.

A topic has the messages of all registries of a project. Pub/Sub redelivers messages until they are answered with 2xx.

https://cloud.google.com/artifact-registry/docs/configure-notifications
https://cloud.google.com/pubsub/docs/push
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Any, Final

from replicator.model.strictjson import read_object
from replicator.notifications.format import JSON, Delivery, Format, Hint
from replicator.notifications.reading import epoch, has, pushed, split_reference, text


def _recognizes(delivery: Delivery) -> bool:
    document = delivery.document
    return _is_wrapped(document) or (
        document.get("action") in ("INSERT", "DELETE") and ("digest" in document or "tag" in document)
    )


def _is_wrapped(document: Any) -> bool:
    return has(document, "message", "subscription")


def _read(delivery: Delivery) -> Iterator[Hint | None]:
    document, headers = delivery.document, delivery.headers
    if _is_wrapped(document):
        at = epoch(text(document, "message", "publishTime"))
        message = _unwrap(text(document, "message", "data") or "")
    else:
        at, message = epoch(headers.get("x-goog-pubsub-publish-time")), document
    if text(message, "action") != "INSERT":
        yield None
        return
    host, repository, tag = split_reference(text(message, "tag"))
    _, _, digest = split_reference(text(message, "digest"))
    yield pushed(repository, tag, at=at, digest=digest, registry=host)


def _unwrap(data: str) -> Any:
    try:
        return read_object(base64.b64decode(data, validate=True))
    except (binascii.Error, ValueError):
        return None


FORMAT: Final = Format(
    "google",
    _recognizes,
    _read,
    # Pub/Sub sends unwrapped messages without a media type
    media_types=JSON | {"application/octet-stream"},
    redelivers=True,
)
