"""Quay: the notification `repo_push`, one per manifest pushed by tag. It has no digest and no signature.

https://docs.redhat.com/en/documentation/red_hat_quay/3/html/use_red_hat_quay/repository-notifications
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from replicator.notifications.format import Delivery, Format, Hint
from replicator.notifications.reading import has, member, pushed, split_reference, text


def _recognizes(delivery: Delivery) -> bool:
    return has(delivery.document, "repository", "docker_url", "homepage")


def _read(delivery: Delivery) -> Iterator[Hint | None]:
    """Other events (builds, vulnerabilities) have no `updated_tags`."""
    document = delivery.document
    tags = member(document, "updated_tags")
    if not isinstance(tags, list) or not tags:
        yield None
        return
    host, _, _ = split_reference(text(document, "docker_url"))
    for tag in tags:
        yield pushed(text(document, "repository"), tag if isinstance(tag, str) else None, registry=host)


FORMAT: Final = Format("quay", _recognizes, _read)
