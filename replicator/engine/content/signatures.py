"""Signatures of an image at its source: which there are, and their bytes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import msgspec

from replicator.engine.content.referrers import RootListing
from replicator.engine.content.source import SourceContent
from replicator.errors import NotFound
from replicator.model.companion import fallback_tag
from replicator.model.descriptor import Descriptor
from replicator.model.digest import Digest
from replicator.trust.shapes import (
    SIGNATURE_SUFFIXES,
    check_size,
    may_be_signature,
    newest_first,
    signature_layers,
)
from replicator.trust.verify import Finding, Signature, Trial


class Candidate(msgspec.Struct, frozen=True):
    """A manifest that may be, or hold, signatures. `tag` names it where it is one of cosign's older tags."""

    digest: Digest
    tag: str | None = None

    @property
    def where(self) -> str:
        """The candidate, for people."""
        return f"tag {self.tag}" if self.tag else f"referrer {self.digest}"


def candidates_in(listing: RootListing) -> Sequence[Candidate]:
    """What may sign the image, the newest referrers first, then cosign's older tags."""
    return [
        *(Candidate(one.digest) for one in newest_first(listing.referrers) if may_be_signature(one)),
        *(Candidate(digest, tag) for tag, digest in listing.tags.items() if digest is not None),
    ]


class SignatureReader(msgspec.Struct, frozen=True):
    """Reads signatures in one repository of a source.

    Args:
        content: the source's content.
        repository: the repository's name.
        mirrors: asked first for content, by digest.
        on_read: told how many bytes were read.
    """

    content: SourceContent
    repository: str
    mirrors: Sequence[str]
    on_read: Callable[[int], None]

    async def listing(self, root: Digest, companions: Collection[str] | None) -> RootListing:
        """What refers to the image, and what its older tags that hold signatures name.

        Costs one request for the referrers, and one for each older tag that exists; none for what the listing of tags
        (`companions`, see `WantedTags`) shows not to exist.

        Raises:
            SiteError: the source could not be asked: whether the image is signed is not known.
        """
        repository, source = self.content.repository(self.repository), self.content.referrers
        referrers = await source.listed(repository, root, companions)
        tags = [fallback_tag(root) + suffix for suffix in SIGNATURE_SUFFIXES]
        return RootListing(
            root, referrers, {tag: await source.tagged(repository, tag, companions) for tag in tags}
        )

    async def examine(self, candidate: Candidate, root: Digest, trial: Trial, most: int) -> list[Finding]:
        """Has the trial examine the signatures of one candidate, at most `most`; stops when it is decided.

        Raises:
            SiteError: the source could not be read.
        """
        found: list[Finding] = []
        where = candidate.where
        try:
            manifest = await self.content.manifest(
                self.repository, candidate.digest, self.mirrors, self.on_read
            )
        except NotFound:
            return [*trial.unusable(where, "is listed but does not exist")]
        if candidate.tag is None and (manifest.subject is None or manifest.subject.digest != root):
            return [*trial.unusable(where, "does not refer to the image")]
        try:
            layers = signature_layers(manifest, where)
        except ValueError as problem:
            return [*trial.unusable(where, str(problem))]
        for layer in layers[:most]:
            try:
                check_size(layer)
            except ValueError as problem:
                found += trial.unusable(layer.where, str(problem))
                continue
            body = await self._read(layer.blob)
            found += trial.examine(Signature(layer.where, layer.form, body, layer.annotations))
            if trial.is_over:
                break
        trial.leave(max(0, len(layers) - most))
        return found

    async def _read(self, blob: Descriptor) -> bytes:
        source = self.content.direct(self.repository, blob, self.mirrors, self.on_read)
        async with source.open() as chunks:
            return b"".join([chunk async for chunk in chunks])
