"""A state that is forgotten with its process: `ports.State` in plain dictionaries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from replicator.flow.clock import SystemClock
from replicator.model.digest import Digest
from replicator.ports import (
    Clock,
    Created,
    Entry,
    Listed,
    Missing,
    Noted,
    Pending,
    Placed,
    RunRow,
    Seen,
    Standing,
    TagBelief,
    Unpending,
)

_KEPT = 4


class MemoryState:
    """Everything is there at once, so `flush` has nothing to do. Passes the same suite as `SqliteState`."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._beliefs: dict[tuple[str, str], dict[str, TagBelief]] = {}
        self._pending: dict[tuple[str, str], dict[tuple[str, str], Pending]] = {}
        self._repositories: set[tuple[str, str]] = set()
        self._whereabouts: dict[tuple[str, Digest], list[str]] = {}
        self._created: dict[Digest, float] = {}
        self._listed: dict[tuple[str, str], dict[str, Listed]] = {}
        self._standings: dict[tuple[str, str], Standing] = {}
        self._runs: list[RunRow] = []

    async def beliefs(self, destination: str, repository: str) -> Mapping[str, TagBelief]:
        return dict(self._beliefs.get((destination, repository), {}))

    async def pending(self, rule: str, destination: str, repository: str) -> Mapping[str, Pending]:
        known = self._pending.get((rule, destination), {})
        return {tag: each for (place, tag), each in known.items() if place == repository}

    async def pending_repositories(self, rule: str, destination: str) -> frozenset[str]:
        return frozenset(place for place, _ in self._pending.get((rule, destination), {}))

    async def knows_repository(self, site: str, repository: str) -> bool:
        return (site, repository) in self._repositories

    async def whereabouts(self, site: str, digests: Iterable[Digest]) -> Mapping[Digest, Sequence[str]]:
        known = {digest: self._whereabouts.get((site, digest), []) for digest in digests}
        return {digest: list(places) for digest, places in known.items() if places}

    async def forget(self, site: str, repository: str, digests: Iterable[Digest]) -> None:
        for digest in digests:
            places = self._whereabouts.get((site, digest), [])
            if repository in places:
                places.remove(repository)

    async def created(self, digests: Iterable[Digest]) -> Mapping[Digest, float]:
        return {digest: self._created[digest] for digest in digests if digest in self._created}

    async def listed(self, site: str, repository: str) -> Mapping[str, Listed]:
        return dict(self._listed.get((site, repository), {}))

    def begin(self, rule: str, destination: str) -> None:
        self._standings.setdefault((rule, destination), Standing(rule, destination, self._clock.now()))

    def record(self, entry: Entry) -> None:
        match entry:
            case Placed(rule, destination, belief, repository, _):
                self._repositories.add((destination, repository))
                self._beliefs.setdefault((destination, repository), {})[belief.tag] = belief
                self._pending.get((rule, destination), {}).pop((repository, belief.tag), None)
            case Missing(rule, destination, pending):
                known = self._pending.setdefault((rule, destination), {})
                before = known.get((pending.repository, pending.tag), pending)
                known[pending.repository, pending.tag] = msgspec.structs.replace(
                    pending, since=min(before.since, pending.since)
                )
            case Unpending(rule, destination, repository, tag, _):
                self._pending.get((rule, destination), {}).pop((repository, tag), None)
            case Seen(site, repository, digest):
                self._repositories.add((site, repository))
                places = self._whereabouts.setdefault((site, digest), [])
                self._whereabouts[site, digest] = [
                    repository,
                    *(place for place in places if place != repository),
                ][:_KEPT]
            case Created(digest, at):
                self._created[digest] = at
            case Noted(site, repository, listed):
                self._repositories.add((site, repository))
                self._listed.setdefault((site, repository), {})[listed.tag] = listed

    async def flush(self) -> None:
        pass

    async def close_run(self, row: RunRow) -> Standing:
        self._runs.append(row)
        key = (row.rule, row.destination)
        before = self._counted(self._standings.get(key) or Standing(*key, row.started_at))
        if row.narrowed:
            after = before
        else:
            good = row.complete_look and row.outcome == "ok" and not row.failed and not before.pending
            after = msgspec.structs.replace(
                before,
                last_look=row.started_at if row.complete_look else before.last_look,
                last_success=row.ended_at if good else before.last_success,
                in_step=row.in_step,
                held=row.held,
                last_error=row.error,
            )
        self._standings[key] = after
        return after

    async def standings(self, rules: Sequence[str] | None = None) -> Sequence[Standing]:
        return [
            self._counted(standing)
            for (rule, _), standing in sorted(self._standings.items())
            if rules is None or rule in rules
        ]

    async def runs(self, rule: str, destination: str) -> Sequence[RunRow]:
        """The rows closed, latest first."""
        return [row for row in reversed(self._runs) if (row.rule, row.destination) == (rule, destination)]

    async def aclose(self) -> None:
        pass

    def _counted(self, standing: Standing) -> Standing:
        pending = self._pending.get((standing.rule, standing.destination), {}).values()
        return msgspec.structs.replace(
            standing,
            pending=len(pending),
            failed=sum(each.attempts > 0 for each in pending),
            oldest_pending=min((each.since for each in pending), default=None),
        )
