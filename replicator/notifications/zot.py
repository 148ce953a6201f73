"""zot: CloudEvents of its event sinks, binary (zot's default) or structured. They do not name the host.

https://zotregistry.dev/latest/articles/events/
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from replicator.notifications import cloudevents
from replicator.notifications.format import Delivery, Format, Hint
from replicator.notifications.reading import epoch, pushed, text

_TYPE: Final = "zotregistry."


def _recognizes(delivery: Delivery) -> bool:
    return cloudevents.event_type(delivery).startswith(_TYPE)


def _read(delivery: Delivery) -> Iterator[Hint | None]:
    """`reference` is a tag or a digest."""
    event = cloudevents.cloud_event(delivery)
    if event.type != f"{_TYPE}image.updated":
        yield None
        return
    yield pushed(
        text(event.data, "name"),
        text(event.data, "reference"),
        at=epoch(event.time),
        digest=text(event.data, "digest"),
    )


FORMAT: Final = Format("zot", _recognizes, _read, media_types=cloudevents.MEDIA_TYPES)
