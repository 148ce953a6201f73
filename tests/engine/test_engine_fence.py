"""Runs of a fleet write no tag that another agent may have written meanwhile; one agent alone asks nothing more."""

from __future__ import annotations

import asyncio
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.demo.images import image, load
from replicator.engine.engine import Engine
from replicator.engine.result import DestinationResult
from replicator.errors import OwnershipLostError
from replicator.events import Warned
from replicator.model.companion import fallback_tag
from replicator.model.digest import Digest
from replicator.model.shards import Shard
from replicator.ports import Assignment
from tests.engine.world import World, big, only, rule, world

LOST = "the connection to the database is lost"


class Hold:
    """`ports.Ownership` that is lost when somebody says so, or after so many confirmations. `asked`: how many there were."""

    def __init__(self, lost_after: int | None = None) -> None:
        self.lost = False
        self.lost_after = lost_after
        self.asked = 0

    async def confirm(self) -> None:
        """See `ports.Ownership`."""
        if self.lost or self.asked == self.lost_after:
            raise OwnershipLostError(LOST)
        self.asked += 1


def assigned(hold: Hold) -> Assignment:
    """All there is, as one shard."""
    return Assignment(Shard(0, 1), hold)


async def _run(engine: Engine, hold: Hold) -> DestinationResult:
    return (await engine.sync([rule()], assignment=assigned(hold)))[0].destinations[0]


async def test_a_run_that_was_overtaken_finishes_the_blob_and_sets_no_tag() -> None:
    async with world() as w:
        w.put("a", "v1", big("a"))
        w.put("b", "v1", big("b"))
        hold, layer = Hold(), big("a").manifest.blobs[-1].digest
        pause = w.left.pause("write_blob", subject=layer, at=64 * 1024)
        run = asyncio.create_task(_run(w.engine(), hold))
        await pause.reached.wait()
        hold.lost = True
        pause.release()
        result = await run
        assert result.outcome == "interrupted"
        assert result.warnings == [LOST]
        assert [each.text for each in w.seen if isinstance(each, Warned)] == [LOST]
        assert layer in w.left.store.repositories["a"].blobs
        assert "a" not in w.tags()
        assert result.failures == []
        hold.lost = False
        assert (await _run(w.engine(), hold)).outcome == "ok"
        assert w.tags() == w.tags("source")
        assert w.left.count("write_blob", layer) == 1


async def test_a_tag_that_whoever_took_over_has_set_is_no_failure_of_the_run_that_was_overtaken() -> None:
    async with world() as w:
        w.put("a", "v1", big("old"))
        hold, newer = Hold(), image("newer", 1)
        pause = w.left.pause("write_blob", subject=big("old").manifest.blobs[-1].digest, at=64 * 1024)
        run = asyncio.create_task(_run(w.engine(), hold))
        await pause.reached.wait()
        load(w.left.store, "a", "v1", newer)
        hold.lost = True
        pause.release()
        result = await run
        assert (result.outcome, result.failures) == ("interrupted", [])
        assert w.tags()["a"] == {"v1": newer.digest}


async def test_the_state_keeps_why_a_run_was_given_up() -> None:
    async with world() as w:
        w.put("a", "v1")
        hold = Hold()
        hold.lost = True
        await _run(w.engine(), hold)
        standing = (await w.state.standings(["rule"]))[0]
        assert (standing.last_error, standing.pending, standing.failed) == (LOST, 1, 0)


@pytest.mark.parametrize(
    ("confirmed", "referrers", "lists", "tags"), [(0, 0, 0, 0), (1, 1, 0, 0), (2, 1, 1, 0), (3, 1, 1, 1)]
)
async def test_a_list_of_referrers_is_not_written_either(
    confirmed: int, referrers: int, lists: int, tags: int
) -> None:
    async with world() as w:
        w.left.referrers_api = False
        built = w.put("a", "v1")
        signature = image("signature", 1, subject=built.manifest.descriptor)
        load(w.source.store, "a", None, signature)
        await _run(w.engine(), Hold(lost_after=confirmed))
        written = [signature.digest, fallback_tag(built.digest), "v1"]
        assert [w.left.count("write_manifest", each) for each in written] == [referrers, lists, tags]


async def test_one_agent_alone_asks_nothing_and_a_fleet_one_question_for_each_tag() -> None:
    async with world() as alone, world() as fleet:
        for w in (alone, fleet):
            for tag in ("v1", "v2", "v3"):
                w.put("a", tag)
        hold = Hold()
        await alone.sync_one()
        await _run(fleet.engine(), hold)

        def asked(w: World) -> dict[str, int]:
            return {
                method: w.left.count(method) for method in ("tags", "resolve", "write_manifest", "has_blob")
            }

        assert asked(fleet) == {**asked(alone), "resolve": asked(alone)["resolve"] + 3}
        assert hold.asked == 3
        alone.clear_log()
        fleet.clear_log()
        await alone.sync_one()
        await _run(fleet.engine(), hold)
        assert asked(fleet) == asked(alone)
        assert hold.asked == 3


async def test_a_tag_that_another_agent_has_moved_is_not_set_back() -> None:
    async with world() as w:
        old, new = w.put("a", "latest", big("old")), big("new")
        pause = w.left.pause("write_blob", subject=old.manifest.blobs[-1].digest)
        slow = asyncio.create_task(_run(w.engine(), Hold()))
        await pause.reached.wait()
        w.put("a", "latest", new)
        assert (await _run(w.engine(), Hold())).outcome == "ok"
        pause.release()
        result = await slow
        assert w.tags()["a"]["latest"] == new.digest
        assert [each.reason for each in result.failures] == ["moved"]
        assert (
            f"tag latest named nothing when it was compared and names {new.digest} now"
            in result.failures[0].cause
        )
        standing = (await w.state.standings(["rule"]))[0]
        assert standing.pending == 0
        w.clear_log()
        assert (await _run(w.engine(), Hold())).totals.tags.unchanged == 1
        assert w.left.count("resolve") == 0


async def test_an_image_that_another_agent_has_brought_is_in_step() -> None:
    async with world() as w:
        built = w.put("a", "v1", big("a"))
        pause = w.left.pause("write_blob", subject=built.manifest.blobs[-1].digest)
        slow = asyncio.create_task(_run(w.engine(), Hold()))
        await pause.reached.wait()
        load(w.left.store, "a", "v1", built)
        pause.release()
        assert (await slow).outcome == "ok"
        assert w.left.count("write_manifest", "v1") == 0


async def test_a_tag_that_a_person_has_moved_is_put_right_by_the_next_run() -> None:
    """Not forever left alone because each run rests on what it once put there."""
    async with world() as w:
        w.put("a", "latest")
        await _run(w.engine(), Hold())
        load(w.left.store, "a", "latest", image("by hand"))
        moved = w.put("a", "latest", image("moved"))
        assert len(only(await _run(w.engine(), Hold()), "failed")) == 1
        assert (await _run(w.engine(), Hold())).outcome == "ok"
        assert w.tags()["a"]["latest"] == moved.digest


class _Lock:
    """One shard's ownership: whoever takes it over has it, and nobody else any more."""

    def __init__(self) -> None:
        self.owner: object = None

    def take(self) -> _Owner:
        self.owner = owner = _Owner(self)
        return owner


class _Owner:
    def __init__(self, lock: _Lock) -> None:
        self._lock = lock

    async def confirm(self) -> None:
        if self._lock.owner is not self:
            raise OwnershipLostError("taken over")


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 5))
async def test_the_newest_digest_wins_whoever_pauses_where(seed: int, versions: int) -> None:
    """A tag never goes back, wherever an agent is overtaken but within a request that is on its way."""
    random = Random(seed)
    async with world() as w:
        for site in w.sites.values():
            site.turns = lambda: random.randrange(1, 12)
        lock, version_of, shown = _Lock(), dict[Digest, int](), [-1]

        def watch() -> None:
            digest = w.tags().get("a", {}).get("latest")
            if digest is not None and version_of[digest] != shown[-1]:
                shown.append(version_of[digest])

        async def turn() -> None:
            await asyncio.sleep(0)
            watch()

        def is_writing() -> bool:
            return any(
                (one.method, one.outcome) == ("write_manifest", "running") for one in w.left.operations
            )

        engines, runs = (w.engine(), w.engine()), list[asyncio.Task[object]]()
        for version in range(versions):
            version_of[w.put("a", "latest", big(f"v{version}", 70_000)).digest] = version
            for _ in range(random.randrange(1, 3)):
                while is_writing():
                    await turn()
                assignment = Assignment(Shard(0, 1), lock.take())
                runs.append(asyncio.create_task(random.choice(engines).sync([rule()], assignment=assignment)))
                for _ in range(random.randrange(400)):
                    await turn()
        while not all(run.done() for run in runs):
            await turn()
        for run in runs:
            await run
        await w.engine().sync([rule()], assignment=Assignment(Shard(0, 1), lock.take()))
        watch()
        assert shown == sorted(shown)
        assert shown[-1] == versions - 1
