"""GitLab: its registry sends distribution's notifications; GitLab's own webhooks do not report image pushes.

https://docs.gitlab.com/administration/packages/container_registry/#configure-container-registry-notifications
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from replicator.notifications import distribution
from replicator.notifications.format import Delivery, Format, Hint


def _recognizes(delivery: Delivery) -> bool:
    return "x-gitlab-event" in delivery.headers or distribution.FORMAT.recognizes(delivery)


def _read(delivery: Delivery) -> Iterable[Hint | None]:
    if distribution.FORMAT.recognizes(delivery):
        return distribution.read(delivery)
    return [None]  # a project's or system hook: pushes of commits, pipelines, ...


FORMAT: Final = Format(
    "gitlab",
    _recognizes,
    _read,
    media_types=distribution.FORMAT.media_types,
    secret_header="X-Gitlab-Token",  # noqa: S106 - a header's name
    is_same=distribution.FORMAT.is_same,
    redelivers=True,
)
