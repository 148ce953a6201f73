"""What refers to an image at its source: signatures, SBOMs, attestations, and what refers to those.

OCI distribution-spec, "Listing Referrers" and "Referrers Tag Schema".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import Final

from replicator.engine.referrers import ReferrersAPIs, read_fallback
from replicator.errors import Corrupt, Denied, NotFound, SiteError, Unsupported
from replicator.model.companion import fallback_tag, legacy_tags
from replicator.model.digest import Digest
from replicator.model.image import MAX_MANIFEST_BYTES, Image, Referrer, read_image
from replicator.model.manifest import Kind, Manifest
from replicator.policy.rule import Referrers
from replicator.ports import Repository

MAX_REFERRERS: Final = 5_000
"""Of one image, with all that refers to its referrers."""
MAX_DEPTH: Final = 4
"""Referrers of referrers: an SBOM, its signature, a timestamp of that."""


class ReferrersReader:
    """Reads what refers to images of one source site.

    Args:
        site: the name of the source.
        apis: the referrers APIs of all sites.
        warn: told, in a sentence, what a person should know.
    """

    def __init__(self, site: str, apis: ReferrersAPIs, warn: Callable[[str], None]) -> None:
        self._site = site
        self._apis = apis
        self._warn = warn

    async def read(
        self,
        image: Image,
        repository: Repository,
        read: Callable[[Digest], Awaitable[Manifest]],
        *,
        mode: Referrers,
        companions: Collection[str] | None,
    ) -> Image:
        """The image together with what refers to it.

        Args:
            image: as `read_image` gives it.
            repository: at the source.
            read: reads one manifest.
            mode: "root": referrers of the root; "all": of every manifest of the image. Of these, in turn, always.
            companions: the companion tags that the repository lists; None where it was not listed, so that each is
                asked for.

        Raises:
            SiteError: the source does not tell what refers to the image, which then must not arrive without it.
        """
        if mode == "none":
            return image
        subjects = [image.root.digest] if mode == "root" else list(image.manifests)
        found: dict[Digest, Referrer] = {}
        for _ in range(MAX_DEPTH):
            below: list[Digest] = []
            for subject in subjects:
                for digest in await self.listed(repository, subject, companions):
                    if digest in found or digest in image.manifests:
                        continue
                    manifest = await self._manifest(repository, digest, subject, read)
                    if manifest is not None:
                        found[digest] = Referrer(subject, manifest)
                        below.append(digest)
                    if len(found) > MAX_REFERRERS:
                        raise self._corrupt(
                            repository, f"{image.root.digest} has over {MAX_REFERRERS} referrers"
                        )
            subjects = below
            if not subjects:
                break
        tagged = await self._tagged(repository, image.root.digest, read, companions)
        return await self._joined(image, repository, read, [*found.values(), *tagged])

    def may_have(self, companions: Collection[str] | None) -> bool:
        """False where it is certain, without asking, that nothing refers to any image of a repository."""
        return self._apis.may_have(self._site) or companions is None or bool(companions)

    async def is_real(self, repository: Repository, subject: Digest, digest: Digest) -> bool:
        """Whether a listed referrer is there and refers to its subject. Raises as `read` does."""
        return await self._manifest(repository, digest, subject, repository.read_manifest) is not None

    async def listed(
        self, repository: Repository, subject: Digest, companions: Collection[str] | None
    ) -> Sequence[Digest]:
        """What the source lists as referrers of a subject, which need not be so. Raises as `read` does."""
        try:
            listed = await self._apis.listed(repository, subject)
        except Denied as error:
            self._warn(f"{repository.name}: referrers are read from fallback tags only: {error.cause}")
            listed = None
        if listed is not None:
            return [one.digest for one in listed]
        if companions is not None and fallback_tag(subject) not in companions:
            return ()
        index = await read_fallback(repository, subject)
        if index is None:
            return ()
        if index.kind is not Kind.INDEX:  # `cosign copy` puts the image itself there
            self._warn(
                f"{repository.name}: tag {fallback_tag(subject)} is not an index of referrers; skipped"
            )
            return ()
        return [one.digest for one in index.children]

    async def _manifest(
        self,
        repository: Repository,
        digest: Digest,
        subject: Digest,
        read: Callable[[Digest], Awaitable[Manifest]],
    ) -> Manifest | None:
        """The referrer, None where it is gone or refers to something else: a list may be older than its content."""
        try:
            manifest = await read(digest)
        except NotFound:
            self._warn(f"{repository.name}: {digest} is listed as a referrer of {subject} but does not exist")
            return None
        if manifest.subject is None or manifest.subject.digest != subject:
            self._warn(
                f"{repository.name}: {digest} is listed as a referrer of {subject} but does not refer to it"
            )
            return None
        return manifest

    async def _tagged(
        self,
        repository: Repository,
        root: Digest,
        read: Callable[[Digest], Awaitable[Manifest]],
        companions: Collection[str] | None,
    ) -> list[Referrer]:
        found = []
        for tag in legacy_tags(root):
            if companions is not None and tag not in companions:
                continue
            try:
                digest = (await repository.resolve(tag)).digest
                found.append(Referrer(root, await read(digest), tag))
            except NotFound:
                continue
        return found

    async def _joined(
        self,
        image: Image,
        repository: Repository,
        read: Callable[[Digest], Awaitable[Manifest]],
        referrers: Iterable[Referrer],
    ) -> Image:
        """One image of all of them; a referrer may be an index with children of its own."""
        manifests, blobs = dict(image.manifests), dict(image.blobs)
        attached = []
        for referrer in referrers:
            try:
                whole = await read_image(referrer.manifest.digest, read, self._site, repository.name)
            except (NotFound, Unsupported) as error:
                self._warn(
                    f"{repository.name}: referrer {referrer.manifest.digest} is skipped: {error.cause}"
                )
                continue
            manifests.update(whole.manifests)
            blobs.update(whole.blobs)
            attached.append(referrer)
            if sum(len(each.body) for each in manifests.values()) > MAX_MANIFEST_BYTES:
                raise self._corrupt(
                    repository, f"referrers of {image.root.digest} are over {MAX_MANIFEST_BYTES} bytes"
                )
        return replace(image, manifests=manifests, blobs=blobs, referrers=tuple(attached))

    def _corrupt(self, repository: Repository, cause: str) -> SiteError:
        return Corrupt(self._site, "list referrers", cause, repository=repository.name)
