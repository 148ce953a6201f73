"""What is asked about: a reference, a digest or a target, and the source tags that it may mean. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from replicator.model.digest import Digest, parse_digest
from replicator.model.names import parse_repository, parse_tag
from replicator.policy.mapping import target_repository, target_tag
from replicator.policy.rule import Rename, Rule
from replicator.policy.selection import certain_repositories, select_repository

MAX_ASKED: Final = 1_000


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked. `site` None: any. `repository` None: only a digest was given; else `tag` or `digest` is set."""

    text: str
    site: str | None
    repository: str | None
    tag: str | None
    digest: Digest | None


@dataclass(frozen=True, slots=True)
class SourceTag:
    """A tag of a rule's source; `tag` None is a digest that is pinned without one."""

    repository: str
    tag: str | None
    digest: Digest | None = None


def parse_asked(text: str, sites: Mapping[str, str]) -> Asked:
    """What a text asks about: `[SITE/]REPOSITORY[:TAG][@DIGEST]` or `DIGEST`; without a tag or digest it is `latest`.

    Args:
        text: as typed. The site is its name in the config, or the host (and path) of its URL.
        sites: URLs by name.

    Raises:
        ValueError: it is neither; says what would be right.
    """
    text = text.strip()
    if len(text) > MAX_ASKED:
        raise ValueError(f"a reference has at most {MAX_ASKED} characters")
    form = "expected [SITE/]REPOSITORY[:TAG][@DIGEST] or a digest"
    try:
        if text.startswith(("sha256:", "sha512:")):
            return Asked(text, None, None, None, parse_digest(text))
        site, rest = _split_site(text.removeprefix("https://").removeprefix("http://"), sites)
        path, at, digest = rest.partition("@")
        repository, colon, tag = path.partition(":")
        named = parse_tag(tag) if colon else None
        if not colon and not at:
            named = "latest"
        return Asked(text, site, parse_repository(repository), named, parse_digest(digest) if at else None)
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}; {form}") from None


def _split_site(text: str, sites: Mapping[str, str]) -> tuple[str | None, str]:
    head, slash, rest = text.partition("/")
    if slash and head in sites:
        return head, rest
    for name, url in sites.items():
        place = url.partition("://")[2].rstrip("/") + "/"
        if text.startswith(place):
            return name, text.removeprefix(place)
    return None, text


def source_tags(rule: Rule, asked: Asked, targets: Iterable[tuple[str, str]]) -> list[SourceTag]:
    """The tags of the rule's source that a reference with a name means: at the source, or by their target's name.

    Args:
        rule: the rule.
        asked: with a repository.
        targets: source and target of repositories that the rule is known to have taken somewhere.
    """
    repository = asked.repository or ""
    found: dict[SourceTag, None] = {}
    if asked.site in {None, rule.source} and (asked.site or select_repository(rule.repositories, repository)):
        found[SourceTag(repository, asked.tag, asked.digest)] = None
    if asked.site is None or asked.site in rule.destinations:
        tags = [None] if asked.tag is None else source_names(rule, asked.tag)
        known, guessed = _sources(rule, repository, targets)
        selected = [each for each in guessed if select_repository(rule.repositories, each)]
        repositories = known or selected or (guessed[:1] if asked.site else [])
        for each in repositories:
            for tag in tags:
                found[SourceTag(each, tag, asked.digest)] = None
    return list(found)


def sources_of(rule: Rule, target: str, targets: Iterable[tuple[str, str]]) -> list[str]:
    """The source repositories that the rule selects and takes to a target, as far as that can be told."""
    known, guessed = _sources(rule, target, targets)
    every = dict.fromkeys([*known, *guessed])
    return [each for each in every if select_repository(rule.repositories, each)]


def source_names(rule: Rule, tag: str) -> list[str]:
    """The source tags that may have this name at the rule's destinations, as far as that can be told."""
    return list(_inverse(rule.rename_tag, tag, lambda name: target_tag(rule, name)))


def _sources(
    rule: Rule, target: str, targets: Iterable[tuple[str, str]]
) -> tuple[Sequence[str], Sequence[str]]:
    """The source repositories that are known to lead to a target, and those that would."""
    known = [source for source, at in targets if at == target]
    known += [each for each in certain_repositories(rule.repositories) if _leads(rule, each, target)]
    guessed = list(_inverse(rule.rename_repository, target, lambda name: target_repository(rule, name)))
    return list(dict.fromkeys(known)), guessed


def _leads(rule: Rule, source: str, target: str) -> bool:
    with suppress(ValueError):
        return target_repository(rule, source) == target
    return False


def _inverse(rename: Rename, name: str, forward: Callable[[str], str]) -> Iterator[str]:
    """The names that a renaming takes to this one, except for what only its replacements would tell."""
    if not (name.startswith(rename.prefix) and name.endswith(rename.suffix)):
        return
    inner = name.removeprefix(rename.prefix)
    inner = inner.removesuffix(rename.suffix) if rename.suffix else inner
    for each in dict.fromkeys((rename.strip + inner, inner)):
        with suppress(ValueError):
            if forward(each) == name:
                yield each
