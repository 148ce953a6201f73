"""Names: repositories, tags, and references as people write them.

Grammar: OCI distribution-spec, "Pulling manifests"; short names and aliases: Docker's reference package.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from replicator.model.digest import Digest, parse_digest

_REPOSITORY: Final = re.compile(
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
)
_TAG: Final = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_HOST: Final = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[(?P<v6>[0-9a-fA-F:.]+)\])(?::(?P<port>[0-9]{1,5}))?"
)
_HUB: Final = frozenset(
    {
        "docker.io",
        "www.docker.io",
        "index.docker.io",
        "registry-1.docker.io",
        "registry.docker.io",
        "registry.hub.docker.com",
        "hub.docker.com",
    }
)
"""Docker Hub by the names that people write; all but one answer with its web site."""

DOCKER_HUB: Final = "docker.io"
MAX_REPOSITORY_LENGTH: Final = 255


def parse_repository(text: str) -> str:
    """The text as a repository name; raises ValueError that says what is wrong."""
    if len(text) > MAX_REPOSITORY_LENGTH:
        raise ValueError(f"repository name of {len(text)} characters: {MAX_REPOSITORY_LENGTH} are allowed")
    if not _REPOSITORY.fullmatch(text):
        raise ValueError(
            f"invalid repository name {text!r}: use lower-case letters and digits, separated by one of . _ __ - and /"
        )
    return text


def parse_tag(text: str) -> str:
    """The text as a tag; raises ValueError that says what is wrong."""
    if not _TAG.fullmatch(text):
        raise ValueError(
            f"invalid tag {text[:150]!r}: use a letter, digit or _, then at most 127 of letters, digits, . _ -"
        )
    return text


def is_tag(text: str) -> bool:
    """Whether `parse_tag` would accept the text."""
    return _TAG.fullmatch(text) is not None


def is_repository(text: str) -> bool:
    """Whether `parse_repository` would accept the text."""
    return len(text) <= MAX_REPOSITORY_LENGTH and _REPOSITORY.fullmatch(text) is not None


class Reference(msgspec.Struct, frozen=True):
    """An image of a registry: host (with port), repository, and a tag, a digest, both or neither."""

    host: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    def __str__(self) -> str:
        text = f"{self.host}/{self.repository}"
        if self.tag:
            text += f":{self.tag}"
        if self.digest:
            text += f"@{self.digest}"
        return text


def parse_reference(text: str) -> Reference:
    """A reference as Docker reads it: `nginx` is `docker.io/library/nginx`; neither tag nor digest is added.

    Raises:
        ValueError: names the offending part.
    """
    if not text:
        raise ValueError("an empty reference: expected [HOST[:PORT]/]REPOSITORY[:TAG][@DIGEST]")
    rest, at, digest_text = text.partition("@")
    digest = _part(text, "digest", parse_digest, digest_text) if at else None
    head, slash, tail = rest.partition("/")
    if slash and ("." in head or ":" in head or head == "localhost" or head.startswith("[")):
        host, path = head, tail
    else:
        host, path = DOCKER_HUB, rest
    host = _part(text, "host", parse_host, host)
    tag: str | None = None
    if ":" in path.rpartition("/")[2]:
        path, _, tag_text = path.rpartition(":")
        tag = _part(text, "tag", parse_tag, tag_text)
    if host == DOCKER_HUB and "/" not in path:
        path = f"library/{path}"
    repository = _part(text, "repository", parse_repository, path)
    return Reference(host, repository, tag, digest)


def parse_host(text: str) -> str:
    """The text as a registry's host, with a port or not; Docker Hub by any of its names is `docker.io`.

    Raises:
        ValueError: says what is wrong.
    """
    match = _HOST.fullmatch(text)
    if match is None:
        raise ValueError(f"invalid host name {text!r}")
    if match["port"] and not 0 < int(match["port"]) < 65536:
        raise ValueError(f"{text!r} has a port outside 1 to 65535")
    if match["v6"]:
        ipaddress.IPv6Address(match["v6"])
    return DOCKER_HUB if text in _HUB else text


def hub_url(url: str) -> str | None:
    """The URL of Docker Hub's registry, where a registry's URL is Docker Hub's by any of its names; else None."""
    scheme, separator, rest = url.partition("://")
    host, _, path = rest.partition("/")
    if not separator or scheme not in {"http", "https"} or path not in {"", "v1", "v2", "v1/", "v2/"}:
        return None
    bare = host.lower().removesuffix(":443" if scheme == "https" else ":80").rstrip(".")
    return f"{scheme}://registry-1.docker.io" if bare in _HUB else None


_T = TypeVar("_T")


def _part(text: str, part: str, parse: Callable[[str], _T], value: str) -> _T:
    try:
        return parse(value)
    except ValueError as error:
        raise ValueError(f"reference {text!r}: {part}: {error}") from error
