"""GitLab: its registry is a distribution registry that notifies as one; GitLab itself tells nothing of pushes of images.

https://docs.gitlab.com/administration/packages/container_registry/#configure-container-registry-notifications
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from replicator.notifications import distribution
from replicator.notifications.format import Delivery, Format, Hint


def _recognises(delivery: Delivery) -> bool:
    return "x-gitlab-event" in delivery.headers or distribution.FORMAT.recognises(delivery)


def _read(delivery: Delivery) -> Iterable[Hint | None]:
    if distribution.FORMAT.recognises(delivery):
        return distribution.read(delivery)
    return [None]  # a project's or system hook: pushes of commits, pipelines, ...


FORMAT: Final = Format(
    "gitlab",
    _recognises,
    _read,
    media_types=distribution.FORMAT.media_types,
    secret_header="X-Gitlab-Token",  # noqa: S106 - a header's name
    is_same=distribution.FORMAT.is_same,
    redelivers=True,
)
