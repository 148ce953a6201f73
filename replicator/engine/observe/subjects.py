"""Images that events named by what refers to them: a fallback tag, one of cosign's older tags, or a referrer's digest."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from replicator.engine.content.referrers import MAX_DEPTH
from replicator.errors import NotFound
from replicator.model.companion import fallback_tag, is_companion, subject_tag
from replicator.model.digest import Digest, is_digest
from replicator.model.manifest import Manifest
from replicator.ports import Repository, State


@dataclass(frozen=True, slots=True)
class Subjects:
    """Manifests that something new refers to, by the name of their fallback tag.

    `answers`: what the events named as referring to them, and what that is now; None where it does not exist. `named`: all
    that the events named.
    """

    tags: frozenset[str] = frozenset()
    named: Collection[str] = ()
    answers: Mapping[str, Digest | None] = field(default_factory=dict)

    def has(self, root: Digest | None) -> bool:
        """Whether something new refers to this manifest."""
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
    answers: dict[str, Digest | None] = {}
    for name in named_by_referrers(names):
        try:
            if is_digest(name):
                answers[name] = Digest(name)
                subject = (await read(Digest(name))).subject
            else:
                answers[name] = (await repository.resolve(name)).digest
                tags.add(subject_tag(name))
                continue
        except NotFound:
            answers[name] = None
            continue
        for _ in range(MAX_DEPTH):
            if subject is None or fallback_tag(subject.digest) in tags:
                break
            tags.add(fallback_tag(subject.digest))
            try:
                subject = (await read(subject.digest)).subject
            except NotFound:
                break
    return Subjects(frozenset(tags), names, answers)


async def narrowed(
    state: State,
    destinations: Collection[str],
    target: str,
    targets: Mapping[str, str],
    told: Mapping[str, Digest],
    subjects: Subjects,
) -> dict[str, str]:
    """The source tags that an event is about: those that it named itself, and those that may name one of the subjects.

    Which ones do is known from the listing, else from what is remembered. A tag of which nothing is remembered, such as one
    that is held, may name anything.

    Args:
        state: the memory.
        destinations: of the rule.
        target: the repository there.
        targets: source tags with their names there.
        told: what the listing tells of the source's tags, as far as it is believed.
        subjects: see `Subjects`.
    """
    found = {tag for tag in targets if tag in subjects.named or (tag in told and subjects.has(told[tag]))}
    unknown = [tag for tag in targets if tag not in told]
    if unknown:
        for destination in destinations:
            beliefs = await state.beliefs(destination, target, None)
            found.update(
                tag
                for tag in unknown
                if (belief := beliefs.get(targets[tag])) is None or subjects.has(belief.source_digest)
            )
    return {tag: name for tag, name in targets.items() if tag in found}
