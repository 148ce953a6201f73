"""What refers to an image at its source: signatures, SBOMs, attestations, and what refers to those.

OCI distribution-spec, "Listing Referrers" and "Referrers Tag Schema".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Final

import msgspec
from msgspec.structs import replace

from replicator.engine.referrers import ReferrersAPIs, read_fallback
from replicator.errors import Corrupt, Denied, HoldKind, NotFound, SiteError, Unsupported, Untrusted
from replicator.flow.parallel import each
from replicator.model.companion import fallback_tag, legacy_tags
from replicator.model.descriptor import Descriptor
from replicator.model.digest import Digest
from replicator.model.image import MAX_MANIFEST_BYTES, Image, Referrer, read_image
from replicator.model.manifest import Kind, Manifest
from replicator.policy.referrers import ReferrerFilter, Traits, is_signature, traits
from replicator.policy.rule import Referrers
from replicator.ports import Repository

MAX_REFERRERS: Final = 5_000
"""Of one subject."""
MAX_IMAGE_REFERRERS: Final = 20_000
"""Of one image: of all its manifests, with all that refers to these referrers."""
MAX_DEPTH: Final = 4
"""Referrers of referrers: an SBOM, its signature, a timestamp of that."""


class RootListing(msgspec.Struct, frozen=True):
    """What the source has just told of the referrers of an image's root.

    `referrers` as it lists them. `tags`: those of cosign's older tags that were asked for, and what they name; None where
    they do not exist.
    """

    root: Digest
    referrers: Sequence[Descriptor]
    tags: Mapping[str, Digest | None]


class WantedReferrers(msgspec.Struct, frozen=True):
    """Which referrers travel.

    `mode`: "root": those of the root; "all": those of every manifest of the image; of these, in turn, always. `chosen`:
    which of them; what refers to one that does not travel is not looked for. `companions`: the companion tags that the
    source's repository lists; None where it was not listed, so that each is asked for. `known` is not asked for again.
    """

    mode: Referrers
    chosen: ReferrerFilter
    companions: Collection[str] | None
    known: RootListing | None = None


class _Found(msgspec.Struct):
    """What was found to refer to an image. `left_out`: traits of what refers to its root and does not travel."""

    root: Digest
    chosen: dict[Digest, Referrer] = msgspec.field(default_factory=dict)
    left_out: list[Traits] = msgspec.field(default_factory=list)

    def judge(self, referrer: Referrer, chosen: ReferrerFilter) -> None:
        what = traits(referrer)
        if chosen.chooses(what):
            self.chosen.setdefault(referrer.manifest.digest, referrer)
        else:
            self.leave_out(referrer.subject, what)

    def leave_out(self, subject: Digest, what: Traits) -> None:
        if subject == self.root:
            self.left_out.append(what)


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
        wanted: WantedReferrers,
    ) -> Image:
        """The image together with what refers to it and travels.

        Args:
            image: as `read_image` gives it.
            repository: at the source.
            read: reads one manifest.
            wanted: which of them.

        Raises:
            Untrusted: something that is required does not refer to the root.
            SiteError: the source does not tell what refers to the image, which then must not arrive without it.
        """
        if wanted.mode == "none":
            return image
        found = _Found(image.root.digest)
        subjects = [image.root.digest] if wanted.mode == "root" else list(image.manifests)
        subjects = [subject for subject in subjects if subject not in image.replaced]
        await self._find_lost(repository, image, wanted, found)
        for _ in range(MAX_DEPTH):
            before = len(found.chosen)
            await self._find(repository, subjects, image, read, wanted, found)
            subjects = list(found.chosen)[before:]
            if not subjects:
                break
        for referrer in await self._all_tagged(image, repository, read, wanted):
            found.judge(referrer, wanted.chosen)
        whole = await self._joined(image, repository, read, found.chosen.values())
        return self._judged(whole, repository, wanted.chosen, found.left_out)

    async def _find(
        self,
        repository: Repository,
        subjects: Sequence[Digest],
        image: Image,
        read: Callable[[Digest], Awaitable[Manifest]],
        wanted: WantedReferrers,
        found: _Found,
    ) -> None:
        """Adds what refers to some manifests."""
        lists = await each(subjects, lambda subject: self._listed(repository, subject, wanted))
        unread: list[tuple[Digest, Digest]] = []
        for subject, listed in zip(subjects, lists, strict=True):
            for one in listed:
                if one.digest in found.chosen or one.digest in image.manifests:
                    continue
                told = _told(one, wanted.chosen)
                if told is None:
                    unread.append((subject, one.digest))
                else:
                    found.leave_out(subject, told)
        if len(found.chosen) + len(unread) > MAX_IMAGE_REFERRERS:
            cause = f"{image.root.digest} has more than {MAX_IMAGE_REFERRERS} referrers"
            raise self._corrupt(repository, cause)

        async def referrer(pair: tuple[Digest, Digest]) -> Referrer | None:
            subject, digest = pair
            manifest = await self._manifest(repository, digest, subject, read)
            return None if manifest is None else Referrer(subject, manifest)

        for known in await each(unread, referrer):
            if known is not None:
                found.judge(known, wanted.chosen)

    def _judged(
        self, image: Image, repository: Repository, chosen: ReferrerFilter, left_out: Collection[Traits]
    ) -> Image:
        of_root = [traits(each) for each in image.referrers if each.subject == image.root.digest]
        objection = chosen.objection(of_root, left_out)
        if objection is not None:
            hold = HoldKind.FILTERED if objection.is_ours else HoldKind.REFERRERS
            raise Untrusted(
                self._site, "list referrers", objection.text, repository=repository.name, hold=hold
            )
        loses = any(map(is_signature, left_out)) and not any(map(is_signature, of_root))
        return replace(image, loses_signature=True) if loses else image

    async def _find_lost(
        self, repository: Repository, image: Image, wanted: WantedReferrers, found: _Found
    ) -> None:
        """What refers to an index that is rewritten has no subject at the destination."""
        for source in image.replaced.values():
            lost = await self._listed(repository, source, wanted)
            for one in lost:
                found.leave_out(image.root.digest, Traits(one.artifact_type or "", one.annotations or {}))
            if lost:
                self._warn(
                    f"{repository.name}: {len(lost)} referrers (signatures, SBOMs) of {source} are not copied: the rule"
                    ' rewrites this index; platform_mode = "sparse" keeps it'
                )

    def may_have(self, companions: Collection[str] | None) -> bool:
        """False where it is certain, without asking, that nothing refers to any image of a repository."""
        return self._apis.may_have(self._site) or companions is None or bool(companions)

    async def travels(
        self, repository: Repository, subject: Digest, one: Descriptor, chosen: ReferrerFilter
    ) -> bool:
        """Whether a listed referrer is there, refers to its subject and is one that travels. Raises as `read` does."""
        if _told(one, chosen) is not None:
            return False
        manifest = await self._manifest(repository, one.digest, subject, repository.read_manifest)
        return manifest is not None and chosen.chooses(traits(Referrer(subject, manifest)))

    async def listed(
        self, repository: Repository, subject: Digest, companions: Collection[str] | None
    ) -> Sequence[Descriptor]:
        """What the source lists as referrers of a subject, which need not be so. Raises as `read` does."""
        try:
            listed = await self._apis.listed(repository, subject)
        except Denied as error:
            self._warn(f"{repository.name}: referrers are read from fallback tags only: {error.cause}")
            listed = None
        except NotFound:
            if self._apis.is_known(repository.site):
                raise
            listed = None  # says nothing: the subject was read a moment ago
        if listed is not None:
            return self._bounded(repository, subject, listed)
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
        return self._bounded(repository, subject, index.children)

    async def _listed(
        self, repository: Repository, subject: Digest, wanted: WantedReferrers
    ) -> Sequence[Descriptor]:
        if wanted.known is not None and wanted.known.root == subject:
            return wanted.known.referrers
        return await self.listed(repository, subject, wanted.companions)

    async def tagged(
        self, repository: Repository, tag: str, companions: Collection[str] | None
    ) -> Digest | None:
        """What one of cosign's older tags names at the source; None if it does not exist. Raises SiteError."""
        if companions is not None and tag not in companions:
            return None
        try:
            return (await repository.resolve(tag)).digest
        except NotFound:
            return None

    def _bounded(
        self, repository: Repository, subject: Digest, listed: Sequence[Descriptor]
    ) -> Sequence[Descriptor]:
        if len(listed) > MAX_REFERRERS:
            cause = f"{subject} has {len(listed)} referrers, more than the {MAX_REFERRERS} that are copied"
            raise self._corrupt(repository, cause)
        return listed

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

    async def _all_tagged(
        self,
        image: Image,
        repository: Repository,
        read: Callable[[Digest], Awaitable[Manifest]],
        wanted: WantedReferrers,
    ) -> list[Referrer]:
        """What belongs to the image by its tag. `cosign sign --recursive` signs the platforms as well as the index.

        Where no listing tells what tags there are, platforms are asked about only if the root has such a tag.
        """
        if wanted.known is None and wanted.companions is not None and not wanted.companions:
            return []
        root = image.root.digest
        found = await self._tagged(repository, root, read, wanted)
        if wanted.mode == "all" and (wanted.companions is not None or found):
            for child in image.manifests:
                if child != root:
                    found += await self._tagged(repository, child, read, wanted)
        return found

    async def _tagged(
        self,
        repository: Repository,
        subject: Digest,
        read: Callable[[Digest], Awaitable[Manifest]],
        wanted: WantedReferrers,
    ) -> list[Referrer]:
        found = []
        known = wanted.known.tags if wanted.known else {}
        for tag in legacy_tags(subject):
            digest = known[tag] if tag in known else await self.tagged(repository, tag, wanted.companions)
            if digest is None:
                continue
            with suppress(NotFound):
                found.append(Referrer(subject, await read(digest), tag))
        return found

    async def _joined(
        self,
        image: Image,
        repository: Repository,
        read: Callable[[Digest], Awaitable[Manifest]],
        referrers: Collection[Referrer],
    ) -> Image:
        """One image of all of them; a referrer may be an index with children of its own."""
        if not referrers:
            return image
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


def _told(listed: Descriptor, chosen: ReferrerFilter) -> Traits | None:
    """The traits of a referrer that does not travel, where its listing tells enough to say so without reading it.

    cosign before 3.1.4 writes entries of fallback tags without annotations, and others without a type.
    """
    if chosen.is_open or not listed.artifact_type or listed.annotations is None:
        return None
    told = Traits(listed.artifact_type, listed.annotations)
    return None if chosen.chooses(told) else told
