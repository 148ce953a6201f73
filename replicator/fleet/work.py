"""What waits in the queue: pieces of work, small enough that every agent gets some, and what becomes of two alike. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import msgspec

REPOSITORIES_NAMED: Final = 1_000
TAGS_NAMED: Final = 1_000
"""More, and the whole is looked at instead: of the shard, or of the repository."""
_URGENT: Final[Mapping[str, int]] = {
    "interval": 0,
    "cron": 0,
    "start": 1,
    "retry": 1,
    "api": 5,
    "webhook": 10,
}
LOOKS_QUEUE: Final = "looks"
"""Every agent serves it."""
LOOK_PRIORITY: Final = 20

Kind = Literal["look", "shard"]


class Work(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One piece of work. A look (`shard` None) finds out which shards there are to look at; the others do it.

    A repository with much to copy is split off its shard, and is work of its own (`alone`).

    Args:
        rule: the rule's name.
        destinations: the ones to bring in step, sorted.
        cause: what wants it, as of runs.
        shard: the number of the shard.
        of: how many shards there are.
        alone: the one repository of the destinations that this is about; "": the shard without those that are split off.
        whole: everything in the shard, not only `repositories`.
        recheck: asks destinations tag by tag.
        repositories: source repositories that events named, each with tags or (None) whole.
        at: when the earliest of these events happened, epoch seconds.
        ticks: the looks that wait for the end of this.
        since: when it began to wait, epoch seconds of the database's clock.
        takeovers: how many agents were lost while they worked on it.
        left: since when it is left to agents whose config has its rule, epoch seconds of the database's clock. 0: it is not.
    """

    rule: str
    destinations: tuple[str, ...]
    cause: str
    shard: int | None = None
    of: int = 1
    alone: str = ""
    whole: bool = True
    recheck: bool = False
    repositories: dict[str, list[str] | None] = {}
    at: float | None = None
    ticks: tuple[int, ...] = ()
    since: float = 0.0
    takeovers: int = 0
    left: float = 0.0

    @property
    def lock(self) -> str:
        """At most one with the same lock is in progress, and one more waits."""
        what = "look" if self.shard is None else f"{self.shard}/{self.of}"
        if self.alone:
            what = f"repository {self.alone}"
        return f"{self.rule} > {' '.join(self.destinations)} {what}"

    def __str__(self) -> str:
        """For people; shards are counted from 1."""
        what = "the look at it" if self.shard is None else self.alone or f"shard {self.shard + 1}/{self.of}"
        return f"{self.rule} -> {', '.join(self.destinations)}: {what}"

    @property
    def queue(self) -> str:
        """Whose agents take it."""
        return LOOKS_QUEUE if self.shard is None else queue_to(self.destinations[0])

    @property
    def priority(self) -> int:
        """The higher, the sooner."""
        return LOOK_PRIORITY if self.shard is None else _URGENT.get(self.cause, 0)

    def merge(self, other: Work) -> Work:
        """Both in one."""
        repositories = dict(self.repositories)
        for name, tags in other.repositories.items():
            known = repositories.get(name, [])
            both = None if known is None or tags is None else sorted({*known, *tags})
            repositories[name] = None if both is None or len(both) > TAGS_NAMED else both
        too_many = len(repositories) > REPOSITORIES_NAMED
        times = [at for at in (self.at, other.at) if at is not None]
        return msgspec.structs.replace(
            self,
            cause=max(self.cause, other.cause, key=lambda cause: _URGENT.get(cause, 0)),
            whole=self.whole or other.whole or too_many,
            recheck=self.recheck or other.recheck,
            repositories={} if too_many else repositories,
            at=min(times) if times and not too_many else None,
            ticks=tuple(sorted({*self.ticks, *other.ticks})),
            since=min(self.since, other.since) or max(self.since, other.since),
            takeovers=max(self.takeovers, other.takeovers),
            left=min(self.left, other.left),
        )

    def plain(self) -> dict[str, Any]:
        """As the queue keeps it."""
        built: dict[str, Any] = msgspec.to_builtins(self)
        return built

    @classmethod
    def read(cls, kept: Mapping[str, Any]) -> Work:
        """The reverse of `plain`, and the tick that procrastinate adds. Raises ValueError: it is another version's."""
        plain = dict(kept)
        tick = plain.pop("timestamp", None)
        work = msgspec.convert(plain, cls)
        return (
            work if tick is None else msgspec.structs.replace(work, ticks=tuple(sorted({*work.ticks, tick})))
        )


@dataclass(frozen=True, slots=True)
class Done:
    """How a piece of work ended. `again`: it waits once more, at least `delay` seconds; else `report` is what came of it.

    The looks that wait for the piece get the report; an empty one where nothing was done.
    """

    again: Work | None = None
    delay: float = 0.0
    report: Mapping[str, Any] = field(default_factory=dict)


def queue_to(site: str) -> str:
    """The queue of what brings a destination in step."""
    return f"to {site}"


def merged(works: Iterable[Work]) -> list[Work]:
    """Works with one lock become one."""
    by_lock: dict[str, Work] = {}
    for work in works:
        known = by_lock.get(work.lock)
        by_lock[work.lock] = work if known is None else known.merge(work)
    return list(by_lock.values())
