"""Alibaba Cloud Container Registry: a repository's trigger. It names the region instead of the host, and has no signature.

https://www.alibabacloud.com/help/en/acr/user-guide/configure-webhook-notifications
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from replicator.notifications.format import Delivery, Format, Hint, same_host
from replicator.notifications.reading import has, pushed, text

_DOMAIN: Final = ".aliyuncs.com"


def _recognizes(delivery: Delivery) -> bool:
    document = delivery.document
    return has(document.get("push_data"), "tag") and has(document.get("repository"), "repo_full_name")


def _read(delivery: Delivery) -> Iterator[Hint | None]:
    """`pushed_at` has no time zone, so it is not used."""
    document = delivery.document
    region = text(document, "repository", "region")
    yield pushed(
        text(document, "repository", "repo_full_name"),
        text(document, "push_data", "tag"),
        digest=text(document, "push_data", "digest"),
        registry=f"registry.{region}{_DOMAIN}" if region else None,
    )


def _is_same(named: str, url: str) -> bool:
    """A registry has several hosts (public, VPC, instance), all with its region."""
    host = urlsplit(url).hostname or ""
    region = named.removeprefix("registry.").removesuffix(_DOMAIN)
    return f".{region}." in host if host.endswith(_DOMAIN) else same_host(named, url)


FORMAT: Final = Format("alibaba", _recognizes, _read, is_same=_is_same)
