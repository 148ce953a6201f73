"""A source and destinations in memory, a state, and an engine over them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from replicator.demo.images import BuiltImage, image, layer, load
from replicator.engine.content.spool import Spool
from replicator.engine.context import RunScope
from replicator.engine.engine import Engine
from replicator.engine.result import ActionResult, DestinationResult, RuleResult
from replicator.events import Event, Events
from replicator.flow.clock import SystemClock
from replicator.model.digest import Digest
from replicator.policy.pattern import Glob, parse_tag_pattern
from replicator.policy.rule import Rename, RepositorySelection, Rule, TagSelection
from replicator.ports import Clock, State
from replicator.state.memory import MemoryState
from tests.fakes.memory import MemorySite
from tests.fakes.watched import WatchedStore

SPOOL_BYTES = 1 << 30


def rule(
    name: str = "rule",
    *,
    destinations: Sequence[str] = ("left",),
    repositories: Sequence[str] = ("**",),
    tags: Sequence[str] = (),
    selection: TagSelection | None = None,
    prefix: str = "",
    rename: Rename | None = None,
    rename_tag: Rename | None = None,
    source: str = "source",
    mirrors: Sequence[str] = (),
) -> Rule:
    """A rule with the few things tests vary; `tags` are include patterns, `selection` a whole table instead."""
    table = selection or TagSelection(include=tuple(parse_tag_pattern(text) for text in tags))
    return Rule(
        name,
        source,
        tuple(destinations),
        RepositorySelection(tuple(Glob.parse(text) for text in repositories)),
        tags=(table,),
        mirrors=tuple(mirrors),
        rename_repository=rename or Rename(prefix=prefix),
        rename_tag=rename_tag or Rename(),
    )


class World:
    """Sites by name, whatever was emitted, and whatever was ever seen dangling at a destination."""

    def __init__(self, sites: Mapping[str, MemorySite], spool: Spool | None, clock: Clock) -> None:
        self.sites = dict(sites)
        self.clock = clock
        self.state: State = MemoryState(clock)
        self.seen: list[Event] = []
        self.events = Events()
        self.events.subscribe(self.seen.append)
        self.spool = spool
        self.dangling = [site.store.watch_dangling() for name, site in self.sites.items() if name != "source"]

    @property
    def source(self) -> MemorySite:
        """The site called source."""
        return self.sites["source"]

    @property
    def left(self) -> MemorySite:
        """The site called left, a destination."""
        return self.sites["left"]

    @property
    def right(self) -> MemorySite:
        """The site called right, a destination."""
        return self.sites["right"]

    @property
    def idle(self) -> bool:
        """Whether no site works any more."""
        return all(site.idle for site in self.sites.values())

    def forget(self) -> None:
        """Forgets everything but the sites, as if the state had been deleted."""
        self.state = MemoryState(self.clock)

    def engine(self, rules: Sequence[Rule] = ()) -> Engine:
        """A new engine, as a new process would have it."""
        return Engine(
            sites=self.sites,
            state=self.state,
            events=self.events,
            clock=self.clock,
            spool=self.spool,
            rules=rules,
        )

    async def sync(self, *rules: Rule, recheck: bool = False, unattended: bool = False) -> list[RuleResult]:
        """One run of the rules (default: everything from source to left)."""
        return await self.engine().sync(rules or (rule(),), recheck=recheck, unattended=unattended)

    async def sync_one(
        self,
        one: Rule | None = None,
        *,
        recheck: bool = False,
        unattended: bool = False,
        scope: RunScope | None = None,
    ) -> DestinationResult:
        """One run of one rule with one destination."""
        results = await self.engine().sync(
            [one or rule()], recheck=recheck, unattended=unattended, scope=scope
        )
        return results[0].destinations[0]

    async def plan_one(self, one: Rule | None = None) -> DestinationResult:
        """What one rule would do at its destination."""
        return (await self.engine().plan([one or rule()]))[0].destinations[0]

    def put(self, repository: str, tag: str | None, built: BuiltImage | None = None) -> BuiltImage:
        """Puts an image into the source."""
        built = built or image(f"{repository}:{tag}")
        load(self.source.store, repository, tag, built)
        return built

    def tags(self, site: str = "left") -> dict[str, dict[str, Digest]]:
        """What a site has: repository -> tag -> digest."""
        store = self.sites[site].store
        return {name: dict(content.tags) for name, content in store.repositories.items() if content.tags}

    def clear_log(self) -> None:
        """Forgets what the sites were asked and what was emitted so far."""
        self.seen.clear()
        for site in self.sites.values():
            site.operations.clear()


@asynccontextmanager
async def world(
    tmp_path: Path | None = None,
    *,
    destinations: Sequence[str] = ("left",),
    mirrors: Sequence[str] = (),
    clock: Clock | None = None,
    spool_bytes: int = SPOOL_BYTES,
    mount: bool = True,
    refuses_dangling: bool = True,
    tells_digest: bool = True,
    chunk_bytes: int = 64 * 1024,
) -> AsyncIterator[World]:
    """A world; with a folder it has a spool, too. The options after that are those of its `MemorySite`s.

    When a test is through, no tag may ever have dangled, and nothing may be left: no call at a site, no upload, no
    task.
    """
    sites = {
        name: MemorySite(
            name,
            WatchedStore(refuses_dangling=refuses_dangling),
            mount=mount,
            tells_digest=tells_digest,
            chunk_bytes=chunk_bytes,
        )
        for name in ("source", *mirrors, *destinations)
    }
    spool = Spool(tmp_path, spool_bytes) if tmp_path else None
    made = World(sites, spool, clock or SystemClock())
    before = asyncio.all_tasks()
    try:
        yield made
        assert [found for seen in made.dangling for found in seen] == []
        assert made.idle
        assert asyncio.all_tasks() - before == set()
    finally:
        if spool:
            await spool.aclose()


def only(result: DestinationResult, outcome: str) -> list[ActionResult]:
    """The actions with an outcome."""
    return [action for action in result.actions if action.outcome == outcome]


def big(seed: str, size: int = 200_000, layers: int = 1) -> BuiltImage:
    """An image whose layers are large enough to be asked for before they are sent."""
    return image(seed, [layer(f"{seed}/{number}", size) for number in range(layers)])


async def until(condition: Callable[[], object]) -> None:
    """Turns the loop until the condition holds; what must happen happens soon, as nothing here waits for time."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - the worlds have no event for everything that tests wait for
            await asyncio.sleep(0)


async def settled() -> None:
    """Turns the loop until whoever can go on has gone as far as he can."""
    for _ in range(200):
        await asyncio.sleep(0)
