"""AWS ECR through EventBridge: its native events, or CloudEvents made by an input transformer.

https://docs.aws.amazon.com/AmazonECR/latest/userguide/ecr-eventbridge.html
The CloudEvents have the shape that argocd-image-updater documents.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from replicator.notifications import cloudevents
from replicator.notifications.format import Delivery, Format, Hint
from replicator.notifications.reading import epoch, has, member, pushed, text

_TYPE: Final = "com.amazon.ecr."
_SOURCE: Final = re.compile(r"urn:aws[a-z-]*:ecr:(?P<region>[a-z0-9-]+):(?P<account>\d{12}):")


def _recognizes(delivery: Delivery) -> bool:
    return has(delivery.document, "detail-type", "detail") or cloudevents.event_type(delivery).startswith(
        _TYPE
    )


def _read(delivery: Delivery) -> Iterator[Hint | None]:
    if cloudevents.event_type(delivery).startswith(_TYPE):
        yield _transformed(cloudevents.cloud_event(delivery))
        return
    document = delivery.document
    detail = member(document, "detail")
    if (
        text(document, "source") != "aws.ecr"
        or text(document, "detail-type") != "ECR Image Action"
        or text(detail, "action-type") != "PUSH"
        or text(detail, "result") != "SUCCESS"
    ):
        yield None
        return
    yield pushed(
        text(detail, "repository-name"),
        text(detail, "image-tag"),
        at=epoch(text(document, "time")),
        digest=text(detail, "image-digest"),
        registry=_registry(text(document, "account"), text(document, "region")),
    )


def _transformed(event: cloudevents.CloudEvent) -> Hint | None:
    if event.type != f"{_TYPE}image.push":
        return None
    source = _SOURCE.match(event.source)
    return pushed(
        text(event.data, "repositoryName"),
        text(event.data, "imageTag"),
        at=epoch(event.time),
        digest=text(event.data, "imageDigest"),
        registry=_registry(source["account"], source["region"]) if source else None,
    )


def _registry(account: str | None, region: str | None) -> str | None:
    return f"{account}.dkr.ecr.{region}.amazonaws.com" if account and region else None


FORMAT: Final = Format("ecr", _recognizes, _read, media_types=cloudevents.MEDIA_TYPES)
