"""Rules that copy a tag in a circle, so that what is pushed at one site is set back by another. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, product
from typing import Final

import msgspec

from replicator.policy.mapping import target_repository, target_tag
from replicator.policy.rule import Rule
from replicator.policy.selection import may_select, select_repository

_LONGEST: Final = 6
"""Rules in a circle; a longer one is not looked for."""
_SAMPLES: Final = 64
"""Names tried for each rule. They are made from its own patterns and from those of the rules it meets."""
_TAGS: Final = ("latest", "v1.0.0", "1.0.0", "main", "x")
_WILDCARD: Final = re.compile(r"\*\*/|\*+|\?|\[[^]]*\]|\{[^{}]*\}")


class Cycle(msgspec.Struct, frozen=True):
    """Rules, each copying from where the one before copies to. `repository` and `tag` go round, from the first one's source."""

    rules: tuple[Rule, ...]
    repository: str
    tag: str

    def __str__(self) -> str:
        """What is wrong and what would be right, in one sentence for the config."""
        names = ", ".join(repr(rule.name) for rule in self.rules[:-1])
        source = self.rules[0].source
        return (
            f"rules {names} and {self.rules[-1].name!r} copy {self.repository}:{self.tag} from {source!r} in a circle:"
            f" what is pushed at one site would be set back by the other. Give them repositories, tags or renamed"
            f" targets that do not overlap; two-way sites will be a rule of their own"
        )


def cycles(rules: Sequence[Rule]) -> list[Cycle]:
    """Circles in which a tag would come back to its source, where it is selected again.

    Each has been followed with a real name, so all of them are real. Names are made from the patterns; a circle that
    only names meet which no pattern suggests (two regular expressions, say) is not found.
    """
    by_source: defaultdict[str, list[Rule]] = defaultdict(list)
    for rule in rules:
        by_source[rule.source].append(rule)
    found: dict[frozenset[str], Cycle] = {}
    for rule in rules:
        meets = _reachable(rule, by_source)
        if rule.source not in {site for other in meets for site in other.destinations}:
            continue
        for cycle in _circles(rule, by_source, meets):
            found.setdefault(frozenset(each.name for each in cycle.rules), cycle)
    return list(found.values())


def _reachable(rule: Rule, by_source: Mapping[str, Sequence[Rule]]) -> list[Rule]:
    """The rules that may copy further what this one has copied, itself first."""
    found, ahead = {rule.name: rule}, [rule]
    while ahead:
        for site in ahead.pop().destinations:
            for other in by_source.get(site, ()):
                if other.name not in found:
                    found[other.name] = other
                    ahead.append(other)
    return list(found.values())


def _circles(rule: Rule, by_source: Mapping[str, Sequence[Rule]], meets: Sequence[Rule]) -> Iterator[Cycle]:
    """One circle from the rule at most, for the first name that goes round."""
    for repository, tag in product(_repositories(meets), _tags(meets)):
        for path in _paths((rule,), repository, tag, by_source):
            yield Cycle(path, repository, tag)
            return


def _paths(
    path: tuple[Rule, ...], repository: str, tag: str, by_source: Mapping[str, Sequence[Rule]]
) -> Iterator[tuple[Rule, ...]]:
    """Ways on from the last rule of the path, which is offered the name, back to the first rule."""
    first, last = path[0], path[-1]
    target = _target(last, repository, tag)
    if target is None:
        return
    if first.source in last.destinations and len(path) > 1 and _target(first, *target) is not None:
        yield path
        return
    if len(path) < _LONGEST:
        for site in last.destinations:
            for other in by_source.get(site, ()):
                if other not in path:
                    yield from _paths((*path, other), *target, by_source)


def _target(rule: Rule, repository: str, tag: str) -> tuple[str, str] | None:
    """What the rule makes of a tag at its source; None where it does not select it."""
    try:
        if select_repository(rule.repositories, repository) and may_select(rule.tags, tag):
            return target_repository(rule, repository), target_tag(rule, tag)
    except ValueError:
        pass
    return None


def _repositories(rules: Sequence[Rule]) -> list[str]:
    names: dict[str, None] = {}
    for rule in rules:
        for glob in rule.repositories.include:
            for name in _samples(glob.text):
                names[name] = None
                names[name.removeprefix(rule.rename_repository.prefix)] = None
                names[rule.rename_repository.strip + name] = None
    return list(islice((name for name in names if name), _SAMPLES))


def _tags(rules: Sequence[Rule]) -> list[str]:
    patterns = (pattern for rule in rules for table in rule.tags for pattern in table.include)
    texts = [pattern.text for pattern in patterns if not pattern.text.startswith("re:")]
    return list(dict.fromkeys([*_TAGS, *(name for text in texts for name in _samples(text))]))[:_SAMPLES]


def _samples(text: str) -> Iterator[str]:
    """Some names that a pattern matches."""
    for filler in ("x", "x/y", ""):
        wildcards = _WILDCARD.findall(text)
        literals = _WILDCARD.split(text)
        examples = [_example(wildcard, filler) for wildcard in wildcards]
        yield "".join(part for pair in zip(literals, [*examples, ""], strict=True) for part in pair)


def _example(wildcard: str, filler: str) -> str:
    if wildcard.startswith("**/"):
        return f"{filler}/" if filler else ""
    if wildcard.startswith("*"):
        return filler if wildcard == "**" else filler.partition("/")[0]
    if wildcard.startswith("{"):
        return wildcard[1:-1].partition(",")[0]
    if wildcard.startswith("[") and wildcard[1] not in "!^":
        return wildcard[1]
    return "x"
