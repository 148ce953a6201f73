"""GitHub's container registry: the events `package` and `registry_package` of a repository's or organisation's webhook.

https://docs.github.com/webhooks/webhook-events-and-payloads#registry_package
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from replicator.notifications.format import Delivery, Format, Hint, Signature
from replicator.notifications.reading import epoch, has, pushed, split_reference, text

_KEYS: Final = ("package", "registry_package")
_ACTIONS: Final = frozenset({"published", "updated"})
_CONTAINERS: Final = frozenset({"container", "docker"})


def _recognizes(delivery: Delivery) -> bool:
    # Gitea and Forgejo send GitHub's headers as well, so they are tried first (`vendors/senders.py`).
    document = delivery.document
    return "x-github-event" in delivery.headers or any(
        has(document.get(key), "package_version") for key in _KEYS
    )


def _read(delivery: Delivery) -> Iterator[Hint | None]:
    """Other events, such as `ping`, are ignored. Children of an index are published without a tag."""
    document = delivery.document
    package = next((document[key] for key in _KEYS if isinstance(document.get(key), dict)), None)
    kind = text(package, "package_type") or text(package, "ecosystem") or ""
    if text(document, "action") not in _ACTIONS or kind.lower() not in _CONTAINERS:
        yield None
        return
    yield _published(package)


def _published(package: Any) -> Hint | None:
    version = package.get("package_version")
    tag = text(version, "container_metadata", "tag", "name")
    digest = text(version, "container_metadata", "tag", "digest") or text(version, "version")
    host, repository, _ = split_reference(text(version, "package_url"))
    owner, name = text(package, "owner", "login") or text(package, "namespace"), text(package, "name")
    if repository is None and owner and name:
        repository = f"{owner}/{name}"
    # the owner keeps its case here, but is lower case in image names
    repository = repository and repository.lower()
    at = epoch(text(version, "updated_at")) or epoch(text(version, "created_at"))
    return pushed(repository, tag, at=at, digest=digest, registry=host)


FORMAT: Final = Format("ghcr", _recognizes, _read, signature=Signature("X-Hub-Signature-256", "sha256"))
