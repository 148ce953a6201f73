"""Which site an image of a list is at: the one whose URL has its host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from replicator.model.names import parse_host


def sites_by_host(urls: Mapping[str, str]) -> dict[str, Sequence[str]]:
    """The names of the registry sites of each host, in the order of the config.

    Args:
        urls: site name -> URL of a registry. A URL with a path prefix is left out: a reference cannot say one.
    """
    found: dict[str, list[str]] = {}
    for name, url in urls.items():
        parts = urlsplit(url)
        if parts.path.strip("/"):
            continue
        found.setdefault(_host(parts.netloc, parts.scheme), []).append(name)
    return {host: tuple(names) for host, names in found.items()}


def _host(netloc: str, scheme: str) -> str:
    """The host as references name it: without user, without the scheme's own port, Docker Hub by its short name."""
    host = netloc.rpartition("@")[2].lower()
    return parse_host(host.removesuffix(":443" if scheme == "https" else ":80"))
