"""Docker Hub: a repository's webhook, for pushes only. It has no digest and no signature; `callback_url` is obsolete.

https://docs.docker.com/docker-hub/repos/manage/webhooks/
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from replicator.model.names import hub_url
from replicator.notifications.format import Delivery, Format, Hint, same_host
from replicator.notifications.reading import epoch, has, member, pushed, split_reference, text

_HUB: Final = "docker.io"


def _recognizes(delivery: Delivery) -> bool:
    document = delivery.document
    return has(document.get("push_data"), "tag") and has(document.get("repository"), "repo_name")


def _read(delivery: Delivery) -> Iterator[Hint | None]:
    document = delivery.document
    host, _, _ = split_reference(text(document, "repository", "repo_url"))
    yield pushed(
        text(document, "repository", "repo_name"),
        text(document, "push_data", "tag"),
        at=epoch(member(document, "push_data", "pushed_at")),
        registry=_HUB if host is None or host == _HUB or host.endswith(".docker.com") else host,
    )


def _is_same(named: str, url: str) -> bool:
    return hub_url(url) is not None if named == _HUB else same_host(named, url)


FORMAT: Final = Format("dockerhub", _recognizes, _read, is_same=_is_same)
