"""Harbor: the events of a project's webhook policy, in its default format or as CloudEvents.

https://goharbor.io/docs/2.14.0/working-with-projects/project-configuration/configure-webhooks/
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from replicator.notifications import cloudevents
from replicator.notifications.format import Delivery, Format, Hint
from replicator.notifications.reading import epoch, has, member, pushed, split_reference, text


def _recognizes(delivery: Delivery) -> bool:
    return has(delivery.document, "type", "event_data") or cloudevents.event_type(delivery).startswith(
        "harbor."
    )


def _read(delivery: Delivery) -> Iterator[Hint | None]:
    """A push by digest has the digest as its tag. Harbor names only the first of several tags."""
    if cloudevents.event_type(delivery).startswith("harbor."):
        event = cloudevents.cloud_event(delivery)
        pushes, at, data = event.type == "harbor.artifact.pushed", epoch(event.time), event.data
    else:
        document = delivery.document
        pushes, at = text(document, "type") == "PUSH_ARTIFACT", epoch(member(document, "occur_at"))
        data = member(document, "event_data")
    resources = member(data, "resources")
    if not pushes or not isinstance(resources, list):
        yield None
        return
    repository = text(data, "repository", "repo_full_name")
    for resource in resources:
        yield _resource(resource, repository, at)


def _resource(resource: Any, repository: str | None, at: float | None) -> Hint | None:
    try:
        host, _, _ = split_reference(text(resource, "resource_url"))
        return pushed(
            repository, text(resource, "tag"), at=at, digest=text(resource, "digest"), registry=host
        )
    except ValueError:
        return None


FORMAT: Final = Format("harbor", _recognizes, _read, media_types=cloudevents.MEDIA_TYPES)
