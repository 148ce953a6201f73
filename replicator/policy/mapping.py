"""Where things go: names at the source to names at a destination, and whether two meet there. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from replicator.model.names import parse_repository, parse_tag
from replicator.policy.rule import Rename, Rule, TagSelection
from replicator.policy.selection import certain_repositories, certain_tags

_Target = tuple[str, Rename]
"""A place to write to, in words. Where it stands for many tags, how they are renamed is part of what it is."""

_AS_IT_IS: Final = Rename()


def rename(rename: Rename, name: str) -> str:
    """The name at the target: `strip` taken off the front, replacements in order, then `prefix` and `suffix`.

    A name that does not begin with `strip` keeps its front. The result may be no valid name.
    """
    name = name.removeprefix(rename.strip)
    for replacement in rename.replacements:
        name = replacement.regex.sub(replacement.replace, name)
    if not (rename.prefix or rename.suffix):
        return name  # the same object: of 100,000 tags, no second text
    return f"{rename.prefix}{name}{rename.suffix}"


def target_repository(rule: Rule, name: str) -> str:
    """The target of a source repository; raises ValueError if its name is invalid."""
    return _checked(parse_repository, rename(rule.rename_repository, name), rule, f"repository {name!r}")


def target_tag(rule: Rule, tag: str) -> str:
    """The target of a source tag; raises ValueError if it is invalid."""
    return _checked(parse_tag, rename(rule.rename_tag, tag), rule, f"tag {tag!r}")


def static_collisions(rules: Sequence[Rule]) -> list[str]:
    """Problems that the rules alone make certain: two different sources for one target, a sentence each.

    Only repositories that are named exactly are looked at, and of them only what leaves no doubt: the same
    target tag from two exactly named tags, from two pins with different digests, or all tags of two
    repositories under the same names. The rest can only be seen in a run.
    """
    problems: list[str] = []
    for collect in (_named_tags, _pins, _whole_repositories):
        claims: defaultdict[_Target, dict[str, str]] = defaultdict(dict)
        for rule in rules:
            for target, source in collect(rule):
                claims[target].setdefault(source, rule.name)
        problems += [
            _sentence(target, sources) for (target, _), sources in claims.items() if len(sources) > 1
        ]
    return problems


def _sentence(target: str, claims: Mapping[str, str]) -> str:
    names = list(dict.fromkeys(claims.values()))
    who = (
        f"rule {names[0]!r} writes"
        if len(names) == 1
        else f"rules {' and '.join(map(repr, names))} both write"
    )
    return f"{who} {target}, from {' and from '.join(claims)}: give one of them another name with rename"


def _named_tags(rule: Rule) -> Iterator[tuple[_Target, str]]:
    """(target, source) of each exactly named tag."""
    for source, target in _repositories(rule):
        for tag in certain_tags(rule.tags):
            renamed = _valid(target_tag, rule, tag)
            if renamed is not None:
                yield from (
                    ((f"{site}: {target}:{renamed}", _AS_IT_IS), f"{source}:{tag}")
                    for site in rule.destinations
                )


def _pins(rule: Rule) -> Iterator[tuple[_Target, str]]:
    """(target, digest) of each pin with a tag: the same digest from two places is not a contradiction."""
    for _, target in _repositories(rule):
        for pin in (pin for selection in rule.tags for pin in selection.pins):
            renamed = None if pin.tag is None else _valid(target_tag, rule, pin.tag)
            if renamed is not None:
                yield from (
                    ((f"{site}: {target}:{renamed}", _AS_IT_IS), pin.digest) for site in rule.destinations
                )


def _whole_repositories(rule: Rule) -> Iterator[tuple[_Target, str]]:
    """(target, source) of each repository all of whose tags are taken."""
    if not any(map(_takes_all, rule.tags)):
        return
    for source, target in _repositories(rule):
        yield from (((f"{site}: {target}, all tags", rule.rename_tag), source) for site in rule.destinations)


def _takes_all(selection: TagSelection) -> bool:
    return selection == TagSelection(
        sort=selection.sort, min_tags=selection.min_tags, immutable=selection.immutable
    )


def _repositories(rule: Rule) -> Iterator[tuple[str, str]]:
    """(source with its site, target repository) of each exactly named repository."""
    for name in certain_repositories(rule.repositories):
        target = _valid(target_repository, rule, name)
        if target is not None:
            yield f"{rule.source}: {name}", target


def _valid(target: Callable[[Rule, str], str], rule: Rule, name: str) -> str | None:
    try:
        return target(rule, name)
    except ValueError:
        return None


def _checked(parse: Callable[[str], str], name: str, rule: Rule, what: str) -> str:
    try:
        return parse(name)
    except ValueError as error:
        raise ValueError(f"rule {rule.name!r} renames {what}: {error}") from error
