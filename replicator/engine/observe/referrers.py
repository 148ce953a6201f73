"""Whether a destination has what refers to an image at its source."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from replicator.engine.content.referrers import ReferrersReader
from replicator.errors import NotFound, Unsupported
from replicator.model.companion import fallback_tag, legacy_tags
from replicator.model.digest import Digest
from replicator.model.manifest import Kind
from replicator.policy.rule import Referrers
from replicator.ports import ListsReferrers, Repository


async def missing_referrers(
    reader: ReferrersReader,
    source: Repository,
    destination: Repository,
    root: Digest,
    children: Sequence[Digest] | None,
    *,
    mode: Referrers,
    companions: Collection[str] | None,
) -> tuple[Digest, ...]:
    """What refers to an image at its source and is not listed at the destination, which has the image.

    Costs one request at the source for each manifest, none where its listing of tags shows that there is nothing; and one
    at the destination for each manifest that something refers to.

    Args:
        reader: of the source.
        source: the repository there.
        destination: the repository at the destination.
        root: the image's root.
        children: the manifests below it; None to read them if they are needed.
        mode: as the rule says.
        companions: see `WantedTags`.

    Raises:
        SiteError: one of the two could not be asked.
    """
    if mode == "none":
        return ()
    missing = await _missing(reader, source, destination, root, companions)
    # After the root, whose answer tells whether the source has the referrers API at all.
    if mode == "all" and reader.may_have(companions):
        if children is None:
            try:
                children = [child.digest for child in (await destination.read_manifest(root)).children]
            except NotFound:
                return (root,)
        for child in children:
            missing += await _missing(reader, source, destination, child, companions)
    return (*missing, *await _moved_tags(source, destination, root, companions))


async def _missing(
    reader: ReferrersReader,
    source: Repository,
    destination: Repository,
    subject: Digest,
    companions: Collection[str] | None,
) -> list[Digest]:
    wanted = await reader.listed(source, subject, companions)
    there = await _listed(destination, subject) if wanted else ()
    lacking = [digest for digest in wanted if digest not in there]
    return [digest for digest in lacking if await reader.is_real(source, subject, digest)]


async def _listed(repository: Repository, subject: Digest) -> Collection[Digest]:
    if not isinstance(repository, ListsReferrers) or repository.lists_referrers:
        try:
            return {one.digest for one in await repository.referrers(subject)}
        except Unsupported:
            pass
    try:
        index = await repository.read_manifest(fallback_tag(subject))
    except NotFound:
        return ()
    return {child.digest for child in index.children} if index.kind is Kind.INDEX else ()


async def _moved_tags(
    source: Repository, destination: Repository, root: Digest, companions: Collection[str] | None
) -> Sequence[Digest]:
    """Cosign adds a signature by moving its older tags. Only those that a listing shows are asked for."""
    moved = []
    for tag in legacy_tags(root):
        if companions is None or tag not in companions:
            continue
        wanted = (await source.resolve(tag)).digest
        try:
            if (await destination.resolve(tag)).digest != wanted:
                moved.append(wanted)
        except NotFound:
            moved.append(wanted)
    return moved
