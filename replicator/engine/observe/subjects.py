"""Images to which something new refers, as events and listings tell.

Events name a fallback tag, one of cosign's older tags, or a referrer's digest; listings show new tags of these kinds.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import suppress
from typing import Final

import msgspec
from msgspec.structs import replace

from replicator.engine.below import SeenCompanions
from replicator.engine.content.referrers import MAX_DEPTH
from replicator.engine.content.source import SourceContent
from replicator.engine.context import Context
from replicator.engine.faults import faults
from replicator.engine.observe.closure import manifests_below
from replicator.errors import NotFound, SiteError
from replicator.flow.parallel import each
from replicator.model.companion import fallback_tag, is_companion, subject_of, subject_tag
from replicator.model.digest import Digest, is_digest
from replicator.model.manifest import Manifest
from replicator.policy.rule import Rule
from replicator.ports import Repository, TagBelief

SEARCHED_ROOTS: Final = 200
"""Images of one repository that are searched for a platform, the newest first. Others wait for `referrers_recheck`."""
_READS_AT_ONCE: Final = 8


class Subjects(msgspec.Struct, frozen=True):
    """Manifests that something new refers to, by the name of their fallback tag.

    `open`: those of `tags` that refer to nothing else as far as is known: images, or platforms of images. `answers`: what
    the events named as referring to them, and what that is now; None where it does not exist. `named`: all that the events
    named.
    """

    tags: frozenset[str] = frozenset()
    open: frozenset[str] = frozenset()
    named: Collection[str] = ()
    answers: Mapping[str, Digest | None] = msgspec.field(default_factory=dict)

    def has(self, root: Digest | None) -> bool:
        """Whether something new refers to this manifest, or to a platform of it."""
        return root is not None and bool(self.tags) and fallback_tag(root) in self.tags


def named_by_referrers(names: Iterable[str] | None) -> frozenset[str]:
    """Of the names in an event, those of something that refers to an image."""
    return frozenset(name for name in names or () if is_companion(name) or is_digest(name))


async def read_subjects(
    repository: Repository, read: Callable[[Digest], Awaitable[Manifest]], names: Collection[str]
) -> Subjects:
    """What is referred to.

    A digest costs one request for each level below the image: a manifest that was pushed by digest may be a referrer, or
    the child of an index, which refers to nothing.

    Args:
        repository: at the source.
        read: reads a manifest there.
        names: what the events named.

    Raises:
        SiteError: the source could not be asked.
    """
    tags: set[str] = set()
    last: set[str] = set()
    answers: dict[str, Digest | None] = {}
    for name in named_by_referrers(names):
        try:
            if is_digest(name):
                answers[name] = Digest(name)
                chain = await _chain(read, Digest(name))
            else:
                answers[name] = (await repository.resolve(name)).digest
                chain = [subject_tag(name)]
        except NotFound:
            answers[name] = None
            continue
        tags.update(chain)
        last.update(chain[-1:])
    return Subjects(frozenset(tags), frozenset(last), names, answers)


async def _chain(read: Callable[[Digest], Awaitable[Manifest]], referrer: Digest) -> list[str]:
    """The fallback tags of all that a manifest refers to, the image last. Raises NotFound for the manifest itself."""
    subject = (await read(referrer)).subject
    found: list[str] = []
    while subject is not None and len(found) < MAX_DEPTH:
        found.append(fallback_tag(subject.digest))
        try:
            subject = (await read(subject.digest)).subject
        except NotFound:
            break
    return found


class News:
    """Finds the tags of one rule to whose images something new refers.

    Args:
        rule: the rule.
        context: the run.
        content: the source's content.
    """

    def __init__(self, rule: Rule, context: Context, content: SourceContent) -> None:
        self._rule = rule
        self._context = context
        self._content = content

    async def named(self, repository: Repository) -> Subjects:
        """What the events of a narrowed run named by what refers to it."""
        scope = self._context.request.scope
        named = None if scope is None else scope.repositories.get(repository.name)
        if not named or self._rule.referrers == "none" or not named_by_referrers(named):
            return Subjects()
        return await read_subjects(repository, self._reader(repository.name), named)

    def shown(self, repository: str, companions: Mapping[str, Digest | None], subjects: Subjects) -> Subjects:
        """What a complete listing shows, if `subjects` of events are none.

        For platforms only: what a listing shows of an image itself is compared with what is remembered of its tag.
        """
        if self._rule.referrers != "all" or self._context.request.scope is not None:
            return subjects
        seen: SeenCompanions = self._context.companions
        new = seen.replace(self._rule.name, repository, companions, record=not self._context.request.dry)
        tags = frozenset(map(subject_tag, new))
        return Subjects(tags, tags) if tags else subjects

    async def with_images(
        self,
        subjects: Subjects,
        repository: str,
        target: str,
        targets: Mapping[str, str],
        told: Mapping[str, Digest],
    ) -> Subjects:
        """The subjects, and with them the images of those that are a platform, or that refer to an image themselves.

        Costs a request for each image of the repository at a destination whose platforms are not known, at most
        `SEARCHED_ROOTS`; none if all subjects are images.

        Args:
            subjects: of events, or of the listing.
            repository: at the source.
            target: at the destinations.
            targets: source tags with their names there.
            told: what the source's listing tells of its tags.
        """
        if not subjects.open:
            return subjects
        unknown = subjects.open.difference(fallback_tag(told[tag]) for tag in targets if tag in told)
        if not unknown:
            return subjects
        believed = await self._believed(target, targets)
        unknown = unknown.difference(fallback_tag(root) for root in believed)
        more: set[str] = set()
        if subjects.answers:  # of a listing, what refers to a referrer waits for the day's look
            followed = await each(sorted(unknown), lambda tag: self._followed(repository, tag))
            more = {tag for chain in followed for tag in chain}
            last = {chain[-1] for chain in followed if chain}
            unknown = unknown.union(last).difference(fallback_tag(root) for root in believed)
        if unknown and self._rule.referrers == "all":
            more |= await self._images_of(unknown, believed, target)
        return replace(subjects, tags=subjects.tags | more) if more else subjects

    async def _followed(self, repository: str, tag: str) -> list[str]:
        """What the manifest with a fallback tag refers to: an SBOM has a signature of its own."""
        digest = subject_of(tag)
        if digest is None:
            return []
        with suppress(SiteError):
            return await _chain(self._reader(repository), digest)
        return []

    async def _believed(self, target: str, targets: Mapping[str, str]) -> dict[Digest, tuple[str, TagBelief]]:
        """The roots at the source that destinations have, with a destination each, those copied last first."""
        found: dict[Digest, tuple[str, TagBelief]] = {}
        for destination in self._rule.destinations:
            beliefs = await self._context.state.beliefs(destination, target, None)
            for named in targets.values():
                if (belief := beliefs.get(named)) is not None:
                    found.setdefault(belief.source_digest, (destination, belief))
        newest = sorted(found.items(), key=lambda item: item[1][1].asked_at, reverse=True)
        return dict(newest)

    async def _images_of(
        self, tags: frozenset[str], believed: Mapping[Digest, tuple[str, TagBelief]], target: str
    ) -> set[str]:
        """The fallback tags of the images that have one of these manifests as a platform."""
        roots = list(believed.items())[:SEARCHED_ROOTS]

        async def has(item: tuple[Digest, tuple[str, TagBelief]]) -> bool:
            _, (destination, belief) = item
            children = self._context.children.get(belief.digest)
            if children is None:
                try:
                    self._context.breaker(destination).check("read manifest", target)
                    with faults(destination, "read manifest", target):
                        there = self._context.sites[destination].repository(target)
                        children = await manifests_below(there, belief.digest)
                except SiteError:
                    return False  # the day's look finds it
                self._context.children.add(belief.digest, children)
            return any(fallback_tag(child) in tags for child in children)

        found = await each(roots, has, width=_READS_AT_ONCE)
        return {fallback_tag(root) for (root, _), is_one in zip(roots, found, strict=True) if is_one}

    async def narrowed(
        self, target: str, targets: Mapping[str, str], told: Mapping[str, Digest], subjects: Subjects
    ) -> dict[str, str]:
        """The source tags that an event is about: those that it named itself, and those that may name one of the subjects.

        Which ones do is known from the listing, else from what is remembered. A tag of which nothing is remembered, such as
        one that is held, may name anything.

        Args:
            target: the repository at the destinations.
            targets: source tags with their names there.
            told: what the listing tells of the source's tags, as far as it is believed.
            subjects: see `Subjects`.
        """
        found = {tag for tag in targets if tag in subjects.named or (tag in told and subjects.has(told[tag]))}
        unknown = [tag for tag in targets if tag not in told]
        if unknown:
            for destination in self._rule.destinations:
                beliefs = await self._context.state.beliefs(destination, target, None)
                found.update(
                    tag
                    for tag in unknown
                    if (belief := beliefs.get(targets[tag])) is None or subjects.has(belief.source_digest)
                )
        return {tag: name for tag, name in targets.items() if tag in found}

    def _reader(self, repository: str) -> Callable[[Digest], Awaitable[Manifest]]:
        def read(digest: Digest) -> Awaitable[Manifest]:
            return self._content.manifest(repository, digest, self._rule.mirrors, lambda _: None)

        return read
