"""What is wanted of a rule, as pieces of work for a fleet. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from msgspec.structs import replace

from replicator.daemon.triggers import Repositories, Want
from replicator.fleet.roster import Agent
from replicator.fleet.work import Done, Work
from replicator.model.shards import shard_of
from replicator.policy.mapping import target_repository
from replicator.policy.rule import Rule

LEFT_SECONDS: Final = 3_600.0
"""How long work waits for an agent whose config has its rule; then the rule counts as removed."""
LEFT_DELAYS: Final = (5.0, 300.0)
"""Seconds until it is offered again: the first time, and at most."""


def together(destinations: Iterable[str], living: Sequence[Agent]) -> list[tuple[str, ...]]:
    """Destinations that the same agents serve: what goes to them is read from the source once."""
    groups: dict[frozenset[str], list[str]] = {}
    for site in sorted(destinations):
        groups.setdefault(frozenset(each.name for each in living if each.has(site)), []).append(site)
    return [tuple(group) for group in groups.values()]


def shards_of(rule: Rule, count: int) -> list[int]:
    """The shards that a rule may have repositories in: all of them, unless it names its repositories."""
    if rule.images is not None:
        return list(range(count))
    names = [glob.exact for glob in rule.repositories.include]
    if None in names:
        return list(range(count))
    return sorted({shard for name in names if name and (shard := shard_for(rule, name, count)) is not None})


def shard_for(rule: Rule, repository: str, count: int) -> int | None:
    """The shard of a source repository. None: its name cannot be mapped, which every look at the rule reports."""
    try:
        return shard_of(target_repository(rule, repository), count)
    except ValueError:
        return None


def look(rule: Rule, destinations: Collection[str], want: Want) -> Work:
    """The look that a want of the whole rule asks for."""
    return Work(rule.name, tuple(sorted(destinations)), want.cause, recheck=want.recheck)


def pieces(rule: Rule, groups: Sequence[Sequence[str]], asked: Work, tick: int, count: int) -> list[Work]:
    """What a look leads to: each shard, for destinations that go together."""
    return [
        Work(
            rule.name,
            tuple(group),
            asked.cause,
            shard=index,
            of=count,
            recheck=asked.recheck,
            ticks=(tick,),
        )
        for index in shards_of(rule, count)
        for group in groups
    ]


def named(rule: Rule, groups: Sequence[Sequence[str]], want: Want, count: int) -> list[Work]:
    """What events, or somebody who asks for repositories, lead to: the shards that have these."""
    by_shard: dict[int, dict[str, list[str] | None]] = {}
    for name, tags in want.repositories.items():
        shard = shard_for(rule, name, count)
        if shard is not None:
            by_shard.setdefault(shard, {})[name] = None if tags is None else sorted(tags)
    return [
        Work(
            rule.name,
            tuple(group),
            want.cause,
            shard=shard,
            of=count,
            whole=False,
            recheck=want.recheck,
            repositories=repositories,
            at=want.at,
        )
        for shard, repositories in by_shard.items()
        for group in groups
    ]


def works(rule: Rule, taken: Iterable[tuple[str, Want]], living: Sequence[Agent], count: int) -> list[Work]:
    """What the wants of a rule's destinations come to; destinations that want the same are brought in step together."""
    found: list[Work] = []
    alike: list[tuple[Want, list[str]]] = []
    for site, want in taken:
        known = next((sites for other, sites in alike if other == want), None)
        if known is None:
            alike.append((want, [site]))
        else:
            known.append(site)
    for want, sites in alike:
        if want.whole:
            found.append(look(rule, sites, want))
        if want.repositories:
            found += named(rule, together(sites, living), want, count)
    return found


def left(work: Work, now: float) -> Done | None:
    """Has work wait for an agent whose config has it, ever longer; None: too long already.

    `now`: epoch seconds of the database's clock.
    """
    since = work.left or now
    waited = max(0.0, now - since)
    if waited >= LEFT_SECONDS:
        return None
    shortest, longest = LEFT_DELAYS
    return Done(again=replace(work, left=since), delay=min(longest, max(shortest, waited)))


def wanted(work: Work) -> Want:
    """The want that a piece of work carries, for the scheduler."""
    repositories: Repositories = {
        name: None if tags is None else frozenset(tags) for name, tags in work.repositories.items()
    }
    cause = work.cause if work.cause in _CAUSES else "api"
    return Want(cause, work.whole, work.recheck, {} if work.whole else repositories, work.at)  # type: ignore[arg-type]


_CAUSES = frozenset({"start", "interval", "cron", "webhook", "api", "retry"})


def places(work: Work, rules: Mapping[str, Rule]) -> list[str]:
    """What may be written by another rule too: where rules may lead to one repository, their shards exclude each other.

    They may if they have the destination in common: renaming and patterns can lead anywhere.
    """
    if work.shard is None:
        return []
    return [
        f"place {site} {work.shard}/{work.of}"
        for site in work.destinations
        if sum(site in rule.destinations for rule in rules.values()) > 1 and _may_meet(site, rules)
    ]


def _may_meet(site: str, rules: Mapping[str, Rule]) -> bool:
    there = [rule for rule in rules.values() if site in rule.destinations]
    fixed: set[str] = set()
    for rule in there:
        if rule.images is not None or any(glob.exact is None for glob in rule.repositories.include):
            return True
        for glob in rule.repositories.include:
            try:
                target = target_repository(rule, glob.exact or "")
            except ValueError:
                continue
            if target in fixed:
                return True
            fixed.add(target)
    return False
