"""A rule that is looked at shard by shard: the shards together are the whole, and cost no listing more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.engine.context import RunScope
from replicator.errors import Unavailable
from replicator.model.shards import Shard, shard_of
from replicator.policy.rule import Rename
from replicator.ports import Assignment, Unit
from replicator.state.memory import MemoryState
from tests.engine.world import World, rule, world
from tests.fakes.clock import FakeClock

NOW = 1_700_000_000.0


class Owned:
    """`ports.Ownership` that is never lost."""

    async def confirm(self) -> None:
        """Always."""


def assigned(index: int, count: int, tick: object = None) -> Assignment:
    """A shard that is ours."""
    return Assignment(Shard(index, count), Owned(), tick)


NAMES = st.sampled_from(["a", "b", "c/d", "c/e", "f", "g/h/i"])


def _fill(w: World, content: Mapping[str, set[str]]) -> None:
    for repository, tags in content.items():
        for tag in tags:
            w.put(repository, tag)


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(NAMES, st.sets(st.sampled_from(["v1", "v2", "v3"]), min_size=1), max_size=6),
    st.integers(1, 5),
    st.sampled_from([Rename(), Rename(prefix="mirror/"), Rename(strip="c/")]),
    st.randoms(),
)
async def test_all_shards_together_are_the_whole(
    content: Mapping[str, set[str]], count: int, rename: Rename, random: Random
) -> None:
    """In whatever order they are looked at; no repository is looked at twice."""
    async with world() as whole, world() as parts:
        for w in (whole, parts):
            _fill(w, content)
        await whole.sync(rule(rename=rename))
        engine, order = parts.engine(), list(range(count))
        random.shuffle(order)
        actions: list[tuple[str, str | None]] = []
        for index in order:
            results = await engine.sync([rule(rename=rename)], assignment=assigned(index, count, "tick"))
            actions += [
                (action.target, action.tag) for result in results for action in result.destinations[0].actions
            ]
        assert parts.tags() == whole.tags()
        assert max(Counter(actions).values(), default=1) == 1
        assert parts.source.count("repositories") == 1
        assert parts.source.count("tags") == whole.source.count("tags")
        assert parts.left.count("tags") == whole.left.count("tags")


async def test_a_run_leaves_other_shards_alone() -> None:
    async with world() as w:
        _fill(w, {name: {"v1"} for name in ("a", "b", "c/d", "c/e", "f")})
        await w.engine().sync([rule(prefix="mirror/")], assignment=assigned(0, 2))
        mine = {name for name in w.tags("source") if shard_of(f"mirror/{name}", 2) == 0}
        assert 0 < len(mine) < 5
        assert {name.removeprefix("mirror/") for name in w.tags()} == mine
        assert {each.repository for each in w.source.operations if each.repository} == mine


async def test_an_event_is_looked_at_by_the_shard_of_its_target_alone() -> None:
    async with world() as w:
        _fill(w, {"a": {"v1"}})
        index = shard_of("a", 4)
        for other in {0, 1, 2, 3} - {index}:
            await w.engine().sync([rule()], scope=RunScope({"a": None}), assignment=assigned(other, 4))
        assert w.tags() == {}
        await w.engine().sync([rule()], scope=RunScope({"a": None}), assignment=assigned(index, 4))
        assert w.tags() == w.tags("source")


async def test_the_next_tick_lists_the_source_again() -> None:
    async with world() as w:
        engine = w.engine()
        for tick in (300, 600):
            for index in range(3):
                await engine.sync([rule()], assignment=assigned(index, 3, tick))
        assert w.source.count("repositories") == 2


async def test_a_listing_that_failed_has_failed_for_the_whole_tick() -> None:
    """A source that is down is not asked by each shard."""
    async with world() as w:
        _fill(w, {"a": {"v1"}})
        w.source.fail("repositories", Unavailable("source", "list repositories", "down"), times=1)
        engine = w.engine()
        for index in range(3):
            results = await engine.sync([rule()], assignment=assigned(index, 3, 300))
            assert [each.cause for each in results[0].destinations[0].failures] == ["down"]
        assert w.source.count("repositories") == 1
        for index in range(3):
            await engine.sync([rule()], assignment=assigned(index, 3, 600))
        assert w.tags() == w.tags("source")


async def test_the_rule_was_looked_at_when_its_last_shard_was() -> None:
    async with world(clock=FakeClock(NOW)) as w:
        _fill(w, {name: {"v1", "v2"} for name in ("a", "b", "c/d", "c/e")})
        engine = w.engine()
        for index in range(3):
            assert [each.last_look for each in await w.state.standings(["rule"])] in ([], [None])
            await engine.sync([rule()], assignment=assigned(index, 3, 1))
        standing = (await w.state.standings(["rule"]))[0]
        assert (standing.last_look, standing.last_success, standing.in_step) == (NOW, NOW, 8)
        await w.clock.sleep(300)
        w.source.fail("tags", Unavailable("source", "list tags", "down"), repository="a", times=9)
        for index in range(3):
            await engine.sync([rule()], assignment=assigned(index, 3, 2))
        standing = (await w.state.standings(["rule"]))[0]
        assert (standing.last_look, standing.look_repository) == (NOW, "a")
        assert standing.last_error == "source: list tags: down"


async def test_a_repository_that_is_gone_ends_whichever_shard_it_was_in() -> None:
    async with world() as w:
        _fill(w, {name: {"v1"} for name in ("a", "b", "c/d", "c/e")})
        engine = w.engine()
        for index in range(3):
            await engine.sync([rule()], assignment=assigned(index, 3, 1))
        for name in ("a", "b"):
            del w.source.store.repositories[name]
        for index in range(3):
            await engine.sync([rule()], assignment=assigned(index, 3, 2))
        assert [unit.repository for unit in await w.state.units("rule")] == ["c/d", "c/e"]
        assert (await w.state.standings(["rule"]))[0].in_step == 2


async def test_that_nothing_matches_is_told_once() -> None:
    async with world() as w:
        _fill(w, {"a": {"v1"}})
        engine, warnings = w.engine(), list[str]()
        for index in range(4):
            results = await engine.sync([rule(repositories=["z/**"])], assignment=assigned(index, 4, 1))
            warnings += results[0].destinations[0].warnings
        assert warnings == ["rule rule: no repository of source matches"]


class CountsUnits(MemoryState):
    """Counts how often all units of a rule are read."""

    reads = 0

    async def units(
        self, rule: str, destination: str | None = None, repositories: Collection[str] | None = None
    ) -> Sequence[Unit]:
        """See `ports.State`."""
        self.reads += repositories is None
        return await super().units(rule, destination, repositories)


async def test_when_repositories_agreed_is_read_once_for_all_shards() -> None:
    async with world() as w:
        _fill(w, {name: {"v1"} for name in ("a", "b", "c/d")})
        state = w.state = CountsUnits(w.clock)
        engine = w.engine()
        for tick in (1, 2):
            for index in range(8):
                await engine.sync([rule()], assignment=assigned(index, 8, tick))
        assert state.reads == 2
