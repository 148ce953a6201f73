"""What is known of images, so that they can be found: an index over what runs have seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import msgspec

from replicator.model.digest import Digest

MAX_TEXT: Final = 1_000
"""Characters of labels and annotations, together, that are kept of one image."""


class ImageFacts(msgspec.Struct, frozen=True):
    """One image by its root digest, as its manifests and config describe it.

    `created` in epoch seconds. `platforms` as `os/architecture[/variant]`. `labels` are those of the configs, `annotations`
    those of the manifests, the root's before its platforms'. `layers` are those of all platforms, each once, with sizes in
    bytes.
    """

    digest: Digest
    created: float | None = None
    artifact_type: str = ""
    platforms: tuple[str, ...] = ()
    labels: Mapping[str, str] = {}
    layers: tuple[tuple[Digest, int], ...] = ()
    annotations: Mapping[str, str] = {}

    @property
    def size(self) -> int:
        """Bytes of all layers."""
        return sum(size for _, size in self.layers)


class ImageSeen(msgspec.Struct, frozen=True):
    """To record: an image passed through, or was read."""

    facts: ImageFacts


class Holding(msgspec.Struct, frozen=True):
    """A tag at a destination, as last seen there, or (`digest` None) one that it lacks.

    `source` names the source repositories that lead to this one, by the rule that owns the tag; `source_digest` is what
    the source tag named then. `since`: when that was last confirmed (epoch seconds), or since when it is pending.
    `is_rewritten`: the digest is that of an index without some platforms, made of the source's.
    """

    rule: str
    destination: str
    repository: str
    tag: str
    digest: Digest | None
    source_digest: Digest | None
    since: float
    sources: tuple[str, ...] = ()
    error: str = ""
    is_rewritten: bool = False


class Move(msgspec.Struct, frozen=True):
    """A tag of a destination began to name a digest, at that time (epoch seconds)."""

    destination: str
    repository: str
    tag: str
    digest: Digest
    at: float


class Query(msgspec.Struct, frozen=True):
    """What is searched for; every condition must hold. Globs know `*` and `?`, which cross `/`.

    `words`: each is part of REPOSITORY:TAG, or begins a word of a label or annotation. `digest`, `layer`: hexadecimal
    prefixes, without the algorithm. `labels`, `annotations`: key and glob of the value ("*" for any). `before`, `after`:
    creation times in epoch seconds. `destination`: only tags that it has or lacks, and those of `rules`. `missing_at`: not what this destination
    is known to hold as its source does. `behind`: only what some destination lacks, or has otherwise than its source or
    another destination.
    """

    words: tuple[str, ...] = ()
    repository: str = ""
    tag: str = ""
    digest: str = ""
    layer: str = ""
    platform: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()
    artifact_type: str = ""
    before: float | None = None
    after: float | None = None
    destination: str = ""
    rules: tuple[str, ...] = ()
    missing_at: str = ""
    behind: bool = False

    @property
    def needs_facts(self) -> bool:
        """Whether it asks for more than names and digests."""
        asked = (
            self.layer,
            self.platform,
            self.labels,
            self.annotations,
            self.artifact_type,
            self.before,
            self.after,
        )
        return any(each not in ("", (), None) for each in asked)


class ImageIndex(Protocol):
    """An index of what runs have seen. An accelerator like the state that it is part of."""

    async def search(self, query: Query, limit: int) -> Sequence[Holding]:
        """Tags that match, `limit` at most, by repository and tag: each with what every destination has of it."""
        ...

    async def facts(self, digests: Sequence[Digest]) -> Mapping[Digest, ImageFacts]:
        """What is known of images."""
        ...

    async def moves(self, destination: str, repository: str, tag: str) -> Sequence[Move]:
        """What a tag has named, the latest first."""
        ...

    async def unindexed(self, limit: int) -> Sequence[Holding]:
        """Tags whose image nothing is known of."""
        ...
