"""JFrog Artifactory: events of the domain `docker`. The secret is sent in a header, or signs the payload.

https://jfrog.com/help/r/jfrog-platform-administration-documentation/webhooks
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from replicator.notifications.format import Delivery, Format, Hint, Signature
from replicator.notifications.reading import has, pushed, text

_ACTIONS: Final = frozenset({"pushed", "promoted", "tag_overwritten"})
_HEADER: Final = "X-JFrog-Event-Auth"


def _recognizes(delivery: Delivery) -> bool:
    return has(delivery.document, "domain", "event_type", "data")


def _read(delivery: Delivery) -> Iterator[Hint | None]:
    """Child manifests have a digest instead of a tag. Test events have another domain."""
    document = delivery.document
    key, image = text(document, "data", "repo_key"), text(document, "data", "image_name")
    if (
        text(document, "domain") != "docker"
        or text(document, "event_type") not in _ACTIONS
        or key is None
        or image is None
    ):
        yield None
        return
    sha256 = text(document, "data", "sha256")
    repository, alias = _names(key, image, delivery.url)
    yield pushed(
        repository,
        text(document, "data", "tag"),
        digest=f"sha256:{sha256}" if sha256 else None,
        registry=_host(text(document, "jpd_origin")),
        alias=alias,
    )


def _names(key: str, image: str, url: str | None) -> tuple[str | None, str | None]:
    """The image's name at the site, and an alternative; both depend on how Artifactory is reached.

    Through the API's path or a host per repository: IMAGE. By repository path: KEY/IMAGE. A port per repository (IMAGE)
    cannot be distinguished from the latter.
    """
    parts = urlsplit(url or "")
    _, is_api, served = parts.path.partition("/api/docker/")
    if is_api:
        return (image, None) if served.strip("/") == key else (None, None)
    if (parts.hostname or "").startswith((f"{key.lower()}.", f"{key.lower()}-")):
        return image, None
    return f"{key}/{image}", image


def _host(origin: str | None) -> str | None:
    try:
        return urlsplit(origin or "").hostname
    except ValueError:
        return None


def _is_same(named: str, url: str) -> bool:
    """A host per repository is `KEY.HOST`, `KEY-HOST` or, at JFrog, `ACCOUNT-KEY.jfrog.io`."""
    host = urlsplit(url).hostname or ""
    account, _, domain = named.partition(".")
    return (
        host == named
        or host.endswith((f".{named}", f"-{named}"))
        or (host.startswith(f"{account}-") and host.endswith(f".{domain}"))
    )


FORMAT: Final = Format(
    "artifactory",
    _recognizes,
    _read,
    signature=Signature(_HEADER, "sha256"),
    secret_header=_HEADER,
    is_same=_is_same,
)
