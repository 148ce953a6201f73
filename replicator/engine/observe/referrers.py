"""Whether a destination has what refers to an image at its source."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from replicator.engine.content.referrers import MAX_DEPTH, ReferrersReader, WantedReferrers
from replicator.engine.referrers import ReferrersAPIs, read_fallback
from replicator.errors import Denied, NotFound
from replicator.flow.parallel import each
from replicator.model.companion import legacy_tags
from replicator.model.descriptor import Descriptor
from replicator.model.digest import Digest
from replicator.model.image import Referrer
from replicator.model.manifest import Manifest
from replicator.policy.referrers import is_signature_type, traits
from replicator.ports import Repository


async def missing_referrers(  # noqa: PLR0913 - both ends, the image, and what of it is wanted
    reader: ReferrersReader,
    apis: ReferrersAPIs,
    source: Repository,
    destination: Repository,
    root: Digest,
    children: Sequence[Digest] | None,
    wanted: WantedReferrers,
    *,
    part_of: Callable[[Manifest], Manifest],
    is_rewritten: bool = False,
    is_thorough: bool = False,
) -> tuple[Digest, ...]:
    """What refers to an image at its source and is not listed at the destination, which has the image.

    Costs one request at the source for each manifest and for each referrer that is not a signature, none where its listing of
    tags shows that there is nothing; and one at the destination for each manifest that something refers to.

    Args:
        reader: of the source.
        apis: the referrers APIs of all sites.
        source: the repository there.
        destination: the repository at the destination.
        root: the image's root.
        children: the manifests below it; None to read them if they are needed.
        wanted: which of them travel.
        part_of: leaves of a manifest what is wanted.
        is_rewritten: the root is a new index, to which nothing refers at the source.
        is_thorough: what refers to signatures is asked for, too.

    Raises:
        SiteError: one of the two could not be asked.
    """
    if wanted.mode == "none":
        return ()
    look = _Look(reader, apis, source, destination, wanted, is_thorough)
    missing = [] if is_rewritten else await look.missing(root)
    # After the root, whose answer tells whether the source has the referrers API at all.
    if wanted.mode == "all" and reader.may_have(wanted.companions):
        if children is None:
            try:
                top = part_of(await destination.read_manifest(root))
                children = [child.digest for child in top.children]
            except NotFound:
                return (root,)
        for found in await each(children, look.missing):
            missing += found
    roots = () if is_rewritten else (root,)
    subjects = (*roots, *(children or ())) if wanted.mode == "all" else roots
    tags = [(subject, tag) for subject in subjects for tag in legacy_tags(subject)]
    moved = await each(tags, lambda one: _moved_to(source, destination, *one, wanted))
    return (*missing, *(digest for digest in moved if digest is not None))


class _Look(msgspec.Struct, frozen=True):
    """Asks both ends what refers to manifests of one image; arguments of `missing_referrers`."""

    reader: ReferrersReader
    apis: ReferrersAPIs
    source: Repository
    destination: Repository
    wanted: WantedReferrers
    is_thorough: bool
    seen: set[Digest] = msgspec.field(default_factory=set)

    async def missing(self, subject: Digest, depth: int = MAX_DEPTH) -> list[Digest]:
        """What refers to the subject, and to that, and is not listed at the destination."""
        self.seen.add(subject)
        at_source = await self.reader.listed(self.source, subject, self.wanted.companions)
        if not at_source:
            return []
        present = await self._present(subject)
        missing: list[Digest] = []
        for one in at_source:
            if one.digest in present:
                if depth > 1 and await self._may_have_its_own(subject, one):
                    missing += await self.missing(one.digest, depth - 1)
            elif await self._travels(subject, one):
                missing.append(one.digest)
        return missing

    async def _present(self, subject: Digest) -> set[Digest]:
        try:
            listed = await self.apis.listed(self.destination, subject)
        except (NotFound, Denied):
            listed = None
        if listed is None:
            index = await read_fallback(self.destination, subject)
            listed = index.children if index else ()  # an image there has none
        return {one.digest for one in listed}

    async def _may_have_its_own(self, subject: Digest, one: Descriptor) -> bool:
        """Whether to ask what refers to a referrer that is there. What is left out is not asked about."""
        if one.digest in self.seen or (not self.is_thorough and is_signature_type(one.artifact_type)):
            return False
        return self.wanted.chosen.is_open or await self._travels(subject, one)

    async def _travels(self, subject: Digest, one: Descriptor) -> bool:
        return await self.reader.travels(self.source, subject, one, self.wanted.chosen)


async def _moved_to(
    source: Repository,
    destination: Repository,
    subject: Digest,
    tag: str,
    wanted: WantedReferrers,
) -> Digest | None:
    """What one of cosign's older tags names at the source alone: cosign adds a signature by moving its tag.

    None where nothing is missing. Only a tag that a listing shows is asked for, and it may be gone by then.
    """
    if wanted.companions is None or tag not in wanted.companions:
        return None
    digest = await _resolved(source, tag)
    if digest is None or digest == await _resolved(destination, tag):
        return None
    if not wanted.chosen.is_open:
        referrer = Referrer(subject, await source.read_manifest(digest), tag)
        return digest if wanted.chosen.chooses(traits(referrer)) else None
    return digest


async def _resolved(repository: Repository, tag: str) -> Digest | None:
    try:
        return (await repository.resolve(tag)).digest
    except NotFound:
        return None
