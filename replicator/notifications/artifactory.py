"""JFrog Artifactory: events of the domain `docker`. Its secret is sent in a header, or signs the body ("use for payload signing").

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


def _recognises(delivery: Delivery) -> bool:
    return has(delivery.document, "domain", "event_type", "data")


def _read(delivery: Delivery) -> Iterator[Hint | None]:
    """The manifests of an index have a digest instead of a tag. The event that tests a webhook is of another domain."""
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
    """What the site calls the image, which depends on how Artifactory is published.

    By its API's path or a host for each repository: the image. By path: the repository's key and the image. A port for
    each repository cannot be told from the last one.
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
    """A host for each repository is `KEY.HOST`, at JFrog itself `ACCOUNT-KEY.jfrog.io`."""
    host = urlsplit(url).hostname or ""
    account, _, domain = named.partition(".")
    return (
        host == named
        or host.endswith((f".{named}", f"-{named}"))
        or (host.startswith(f"{account}-") and host.endswith(f".{domain}"))
    )


FORMAT: Final = Format(
    "artifactory",
    _recognises,
    _read,
    signature=Signature(_HEADER, "sha256"),
    secret_header=_HEADER,
    is_same=_is_same,
)
