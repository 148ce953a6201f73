"""One request to a registry and its reply, as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from multidict import CIMultiDictProxy
from yarl import URL

PAYLOAD_BYTES: Final = 256 * 1024
"""Blobs of at least this size are moved by threads; for smaller ones a second connection costs more than it saves."""


class Call(msgspec.Struct, frozen=True):
    """One request.

    Args:
        operation: short verb phrase for errors and metrics ("read manifest").
        method: of HTTP.
        url: "/v2/..." below the site's url (whose path prefix is kept), or an absolute URL, sent byte for byte.
        repository: None for the whole site.
        actions: wanted on the repository: "pull", "pull,push" or "pull,push,delete"; for the whole site
            "" or "catalog".
        also_pull: a second repository that the same token must let read: a mount's origin.
        headers: beside those of the session. Redirects take only Accept and Range along to another origin.
        body: a small one, such as a manifest.
        expected: statuses that are returned; any other is raised.
        max_bytes: a longer reply is `Corrupt`.
        idempotent: whether it may be tried again; None: as its method is.
        follow: whether redirects of GET and HEAD are followed.
        verified: the caller verifies the answer by its digest, so that any host may give it.
        commits: bytes that the registry may have to copy before it answers.
        blob_bytes: of the blob that it reads or writes, as far as known: large ones leave a part of their gate to others.
        own_login: `headers` have the credentials, if any; the registry's own are not sent.
    """

    operation: str
    method: str
    url: str
    repository: str | None = None
    actions: str = "pull"
    also_pull: str | None = None
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    body: bytes | None = None
    expected: frozenset[int] = frozenset({200})
    max_bytes: int = 1 << 20
    idempotent: bool | None = None
    follow: bool = True
    verified: bool = False
    commits: int = 0
    blob_bytes: int | None = None
    own_login: bool = False

    @property
    def is_payload(self) -> bool:
        """Whether it streams a blob that is large enough for threads (`payload`)."""
        return self.body is None and self.blob_bytes is not None and self.blob_bytes >= PAYLOAD_BYTES


class Reply(msgspec.Struct, frozen=True):
    """A reply, read to its end. `url` is of the request that was answered: a relative Location is relative to it.

    `is_early`: it came before all of the request's body had gone out.
    """

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes
    url: URL
    is_early: bool = False
