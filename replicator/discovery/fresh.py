"""The same answers as from the index, asked of the sites now: what rules select, and what their destinations have of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from msgspec import structs

from replicator.errors import NotFound, SiteError, Unsupported
from replicator.flow.parallel import each
from replicator.model.companion import is_companion
from replicator.model.digest import Digest, encoded
from replicator.model.image import read_indexes
from replicator.model.manifest import Kind
from replicator.model.rewriting import rewritten
from replicator.policy.mapping import target_repository, target_tag
from replicator.policy.rule import Rule
from replicator.policy.selection import certain_repositories, may_select, select_repository
from replicator.ports import Repository, Site
from replicator.ports.search import Holding, ImageFacts, Query

ReadFacts = Callable[[Site, str, Digest], Awaitable[ImageFacts]]


@dataclass(slots=True)
class Answer:
    """What the sites said; `failures` is what could not be asked."""

    holdings: list[Holding] = field(default_factory=list)
    facts: dict[Digest, ImageFacts] = field(default_factory=dict)
    failures: list[SiteError] = field(default_factory=list)


async def ask(
    rules: Sequence[Rule],
    sites: Mapping[str, Site],
    query: Query,
    *,
    now: float,
    read_facts: ReadFacts,
) -> Answer:
    """Asks sources for what rules select, and destinations for what they have of it.

    Words are matched with names only. Images' configs are read where the query asks for more than names and digests.
    """
    answer = Answer()
    for rule in rules:
        if query.destination and query.destination not in {rule.source, *rule.destinations}:
            continue
        try:
            async for name in _repositories(rule, sites[rule.source]):
                await _ask_repository(rule, name, sites, query, now, read_facts, answer)
        except SiteError as error:
            answer.failures.append(error)
    return answer


async def _repositories(rule: Rule, source: Site) -> AsyncIterator[str]:
    seen = set(certain_repositories(rule.repositories))
    for name in sorted(seen):
        yield name
    if any(glob.exact is None for glob in rule.repositories.include):
        async for page in source.repositories():
            for name in page:
                if name not in seen and select_repository(rule.repositories, name):
                    seen.add(name)
                    yield name


async def _ask_repository(
    rule: Rule,
    name: str,
    sites: Mapping[str, Site],
    query: Query,
    now: float,
    read_facts: ReadFacts,
    answer: Answer,
) -> None:
    repository = sites[rule.source].repository(name)
    try:
        listed = [tag async for page in repository.tags() for tag in page if not is_companion(tag)]
        tags = [tag for tag in listed if may_select(rule.tags, tag)]
    except SiteError as error:
        answer.failures.append(error)
        return
    matching = [tag for tag in tags if _names_match(query, name, _target(rule, name, tag)[0], tag)]

    async def ask_tag(tag: str) -> None:
        try:
            await _ask_tag(rule, repository, tag, sites, query, now, read_facts, answer)
        except SiteError as error:
            answer.failures.append(error.about(f"tag {tag}"))

    await each(matching, ask_tag)


async def _ask_tag(
    rule: Rule,
    repository: Repository,
    tag: str,
    sites: Mapping[str, Site],
    query: Query,
    now: float,
    read_facts: ReadFacts,
    answer: Answer,
) -> None:
    digest = (await repository.resolve(tag)).digest
    if not encoded(digest).startswith(query.digest):
        return
    if query.needs_facts:
        if digest not in answer.facts:
            answer.facts[digest] = await read_facts(sites[rule.source], repository.name, digest)
        if not facts_match(query, answer.facts[digest]):
            return
    target, renamed = _target(rule, repository.name, tag)
    found = {name: await _resolve(sites[name].repository(target), renamed) for name in rule.destinations}
    differs = any(there not in {None, digest} for there in found.values())
    new = await _rewritten(rule, repository, digest) if differs else None
    for destination, there in found.items():
        holding = Holding(rule.name, destination, target, renamed, there, digest, now, (repository.name,))
        is_rewritten = new is not None and there == new
        answer.holdings.append(structs.replace(holding, is_rewritten=is_rewritten))


async def _rewritten(rule: Rule, repository: Repository, digest: Digest) -> Digest | None:
    """The digest of the index that the rule makes of the source's; None where it makes none. Raises SiteError."""
    if rule.platforms is None or not rule.platforms.rewrites:
        return None
    top = await repository.read_manifest(digest)
    if top.kind is not Kind.INDEX:
        return None
    indexes = await read_indexes(top, repository.read_manifest, rule.platforms.cut)
    new = rewritten(indexes[digest], indexes).get(digest) if indexes else None
    return new.digest if new else None


async def _resolve(repository: Repository, tag: str) -> Digest | None:
    try:
        return (await repository.resolve(tag)).digest
    except (NotFound, Unsupported):
        return None


def _target(rule: Rule, name: str, tag: str) -> tuple[str, str]:
    try:
        return target_repository(rule, name), target_tag(rule, tag)
    except ValueError:
        return name, tag


def _names_match(query: Query, source: str, target: str, tag: str) -> bool:
    names = (source, target)
    return (
        all(any(word.lower() in f"{name}:{tag}".lower() for name in names) for word in query.words)
        and (not query.repository or any(fnmatchcase(name, query.repository) for name in names))
        and (not query.tag or fnmatchcase(tag, query.tag))
    )


def facts_match(query: Query, facts: ImageFacts) -> bool:
    """Whether an image is one that the query asks for, as far as it asks for more than names and digests."""
    if query.layer and not any(encoded(layer).startswith(query.layer) for layer, _ in facts.layers):
        return False
    if query.platform and not any(fnmatchcase(f"{each}/", f"{query.platform}/*") for each in facts.platforms):
        return False
    if query.artifact_type and not fnmatchcase(facts.artifact_type, query.artifact_type):
        return False
    for texts, conditions in ((facts.labels, query.labels), (facts.annotations, query.annotations)):
        if not all(key in texts and fnmatchcase(texts[key], glob) for key, glob in conditions):
            return False
    if query.before is not None and (facts.created is None or facts.created >= query.before):
        return False
    return query.after is None or (facts.created is not None and facts.created >= query.after)
