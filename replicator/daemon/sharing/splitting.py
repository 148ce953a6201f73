"""Repositories that have much to copy: they become work of their own, so that the rest of their shard need not wait."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from replicator.fleet.work import Work
from replicator.policy.mapping import target_repository
from replicator.policy.rule import Rule
from replicator.ports import ToCopy

_log = logging.getLogger(__name__)

MANY_TAGS: Final = 200
"""This many tags of one repository are much, whatever their size: their requests alone take long."""


@dataclass(frozen=True, slots=True)
class Much:
    """When a repository is split off: at this many `bytes` of payload to copy, or this many `tags`."""

    bytes: int
    tags: int = MANY_TAGS

    def is_reached(self, found: ToCopy) -> bool:
        """Whether that much is to be copied, as far as is known. Assumes that the images of a repository have one size."""
        return found.tags >= self.tags or found.tags * found.image_bytes >= self.bytes


class Splits:
    """What a shard's run leaves to others; a `ports.SplitsOff`.

    Args:
        work: the shard's.
        others: the repositories of the rule that are split off already.
        much: what is.
        split_off: has a repository wait by itself; False: too many wait. Raises StateError, OwnershipLostError.
    """

    def __init__(
        self,
        work: Work,
        others: Iterable[Work],
        much: Much,
        split_off: Callable[[Work], Awaitable[bool]],
    ) -> None:
        self._work = work
        self._much = much
        self._split_off = split_off
        self._left: defaultdict[str, set[str]] = defaultdict(set)
        for other in others:
            self._left[other.alone].update(other.destinations)
        self._kept: set[str] = set()
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def is_left(self, destination: str, repository: str) -> bool:
        """See `ports.SplitsOff`."""
        return destination in self._left.get(repository, ())

    def is_left_everywhere(self, repository: str) -> bool:
        """See `ports.SplitsOff`."""
        return self._left.get(repository, set()).issuperset(self._work.destinations)

    async def weigh(self, destination: str, repository: str, found: ToCopy) -> bool:
        """See `ports.SplitsOff`."""
        async with self._turns[repository]:
            if self.is_left(destination, repository):
                return True
            if repository in self._kept:
                return False
            if self._much.is_reached(found) and await self._split_off(
                alone(self._work, self._work.destinations, repository, found.sources)
            ):
                _log.info(
                    "%s has much to copy to %s: split off", repository, ", ".join(self._work.destinations)
                )
                self._left[repository].update(self._work.destinations)
                return True
            if found.image_bytes:
                self._kept.add(repository)
            return False


def alone(work: Work, destinations: Iterable[str], repository: str, sources: Collection[str]) -> Work:
    """A repository of these destinations as work of its own; `sources`: those at the source that lead to it."""
    return msgspec.structs.replace(
        work,
        destinations=tuple(sorted(destinations)),
        alone=repository,
        whole=False,
        repositories=dict.fromkeys(sources),
        takeovers=0,
    )


def redirected(rule: Rule, work: Work, others: Sequence[Work]) -> tuple[Work | None, list[Work]]:
    """Moves what events named to the jobs of repositories that are split off. Returns the rest (or None), and what moved.

    Args:
        rule: the rule.
        work: a shard's, not whole.
        others: the repositories of the rule that are split off.
    """
    rest, moved = dict(work.repositories), []
    for name, tags in work.repositories.items():
        try:
            target = target_repository(rule, name)
        except ValueError:
            continue  # which the run reports
        busy = {site for other in others if other.alone == target for site in other.destinations}
        sites = busy.intersection(work.destinations)
        if sites:
            moved.append(msgspec.structs.replace(alone(work, sites, target, ()), repositories={name: tags}))
        if sites == set(work.destinations):
            del rest[name]
    return (msgspec.structs.replace(work, repositories=rest) if rest else None), moved
