"""Whether a destination has what refers to an image at its source."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from replicator.engine.content.referrers import ReferrersReader
from replicator.engine.referrers import ReferrersAPIs, read_fallback
from replicator.errors import NotFound
from replicator.model.companion import legacy_tags
from replicator.model.digest import Digest
from replicator.policy.rule import Referrers
from replicator.ports import Repository


async def missing_referrers(
    reader: ReferrersReader,
    apis: ReferrersAPIs,
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
        apis: the referrers APIs of all sites.
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
    missing = await _missing(reader, apis, source, destination, root, companions)
    # After the root, whose answer tells whether the source has the referrers API at all.
    if mode == "all" and reader.may_have(companions):
        if children is None:
            try:
                children = [child.digest for child in (await destination.read_manifest(root)).children]
            except NotFound:
                return (root,)
        for child in children:
            missing += await _missing(reader, apis, source, destination, child, companions)
    return (*missing, *await _moved_tags(source, destination, root, companions))


async def _missing(
    reader: ReferrersReader,
    apis: ReferrersAPIs,
    source: Repository,
    destination: Repository,
    subject: Digest,
    companions: Collection[str] | None,
) -> list[Digest]:
    wanted = await reader.listed(source, subject, companions)
    if not wanted:
        return []
    listed = await apis.listed(destination, subject)
    if listed is None:
        index = await read_fallback(destination, subject)
        listed = index.children if index else ()  # an image there has none
    present = {one.digest for one in listed}
    return [
        digest for digest in wanted if digest not in present and await reader.is_real(source, subject, digest)
    ]


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
