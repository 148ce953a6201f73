"""Runs of one process that meet: in a repository, in a target, in what they share."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from replicator.demo.images import image, layer, load
from replicator.engine import queue as copies
from replicator.engine.context import RunScope
from replicator.errors import Rejected
from replicator.events import TagPlanned
from tests.engine.world import big, only, rule, settled, until, world
from tests.fakes.clock import FakeClock


async def test_runs_of_one_rule_take_turns_in_a_repository() -> None:
    async with world() as w:
        w.put("app", "v1")
        engine = w.engine()
        pause = w.left.pause("write_blob")
        first = asyncio.create_task(engine.sync([rule()]))
        await pause.reached.wait()
        second = asyncio.create_task(engine.sync([rule()]))
        await settled()
        assert w.left.count("tags") == 1  # the second waits for its turn
        pause.release()
        assert [one[0].destinations[0].outcome for one in (await first, await second)] == ["ok", "ok"]
        assert w.left.count("write_manifest") == 1


async def test_run_that_waits_for_a_repository_goes_on_in_the_others() -> None:
    async with world() as w:
        slow = w.put("slow", "v1")
        w.put("fast", "v1")
        engine = w.engine()
        pause = w.left.pause("write_blob", subject=slow.manifest.blobs[0].digest)
        first = asyncio.create_task(engine.sync([rule()]))
        await pause.reached.wait()
        await until(lambda: "fast" in w.tags())
        w.put("fast", "v2")
        w.put("new", "v1")
        second = asyncio.create_task(engine.sync([rule()]))
        await until(lambda: "new" in w.tags() and "v2" in w.tags()["fast"])
        pause.release()
        await first
        await second


async def test_older_look_does_not_put_an_older_image_over_a_newer_one() -> None:
    """The interval's run had resolved the tag when it moved; the webhook's run copied the new image; now the first goes on."""
    async with world() as w:
        w.put("app", "v1", image("old"))
        engine = w.engine()
        pause = w.source.pause("resolve", subject="v2")
        w.put("app", "v2")
        first = asyncio.create_task(engine.sync([rule()]))
        await until(lambda: w.source.count("resolve", "v1", "done") == 1)
        new = w.put("app", "v1", image("new"))
        await engine.sync([rule()], scope=RunScope({"app": frozenset({"v1"})}))
        assert w.tags()["app"]["v1"] == new.digest
        pause.release()
        await first
        assert w.tags()["app"] == {"v1": new.digest, "v2": w.source.store.repositories["app"].tags["v2"]}


async def test_tag_that_another_rule_put_there_from_elsewhere_is_not_called_in_step() -> None:
    """Both rules want the target; the later look was faster. The slower rule must say that it lost, not that all is well."""
    async with world(mirrors=["second"]) as w:
        w.put("app", "v1", image("one"))
        load(w.sites["second"].store, "app", "v1", image("two"))
        pause = w.source.pause("resolve")
        one, two = rule("one"), rule("two", source="second")
        run = asyncio.create_task(w.sync(one, two))
        await pause.reached.wait()
        await until(w.tags)
        await settled()
        pause.release()
        first, second = await run
        assert second.destinations[0].outcome == "ok"
        assert first.destinations[0].outcome == "failed"
        assert "rule two" in first.destinations[0].failures[0].cause
        assert "rule one" in first.destinations[0].failures[0].cause
        assert first.destinations[0].totals.tags.unchanged == 0


async def test_narrowed_run_looks_only_at_what_the_event_named() -> None:
    async with world() as w:
        for name in ("a", "b"):
            for tag in ("v1", "v2"):
                w.put(name, tag)
        result = await w.sync_one(scope=RunScope({"a": frozenset({"v1"})}))
        assert result.outcome == "ok"
        assert {name: set(tags) for name, tags in w.tags().items()} == {"a": {"v1"}}
        assert w.source.count("tags") == w.source.count("repositories") == 0
        assert (await w.state.standings(["rule"]))[0].last_look is None


@pytest.mark.parametrize(
    ("event", "since"),
    [(50.0, 50.0), (-1_000.0, 0.0), (1_000_000.0, 100.0)],
    ids=["in between", "from before the last look", "from the future"],
)
async def test_narrowed_run_dates_the_change_by_the_event_within_what_can_be(
    event: float, since: float
) -> None:
    clock = FakeClock()
    began = clock.now()
    async with world(clock=clock) as w:
        await w.sync()
        clock.advance(100.0)
        w.put("a", "v1")
        w.left.fail("write_manifest", Rejected("left", "write manifest", "no"))
        await w.sync_one(scope=RunScope({"a": frozenset({"v1"})}, at=began + event))
        pending = (await w.state.pending("rule", "left", "a"))["v1"]
        assert pending.since == pytest.approx(began + since, abs=1.0)


async def test_narrowed_run_leaves_other_pending_tags_pending() -> None:
    async with world() as w:
        w.put("a", "v1")
        w.put("a", "v2")
        w.left.fail("write_manifest", Rejected("left", "write manifest", "no"), subject="v2")
        await w.sync_one()
        await w.sync_one(scope=RunScope({"a": frozenset({"v1"})}))
        assert set(await w.state.pending("rule", "left", "a")) == {"v2"}


async def test_plan_beside_a_sync_makes_it_believe_nothing() -> None:
    """What a plan asked about is not there; a sync that believed it would tag images with holes."""
    async with world(refuses_dangling=False) as w:
        w.put("app", "v1", big("large"))
        w.put("app", "v2", big("large two"))
        engine = w.engine()
        hold = w.left.pause("has_blob", subject=big("large two").manifest.blobs[1].digest)
        plan = asyncio.create_task(engine.plan([rule()]))
        await hold.reached.wait()
        await settled()
        sync = asyncio.create_task(engine.sync([rule(tags=["v1"])]))
        result = (await sync)[0].destinations[0]
        assert result.outcome == "ok"
        assert result.totals.blobs.copied == 2
        hold.release()
        assert (await plan)[0].destinations[0].outcome == "ok"


async def test_plan_during_a_sync_makes_it_believe_nothing_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "COPIES_AT_ONCE", 1)
    async with world(refuses_dangling=False) as w:
        first, second = w.put("app", "v1", big("one")), w.put("app", "v2", big("two"))
        engine = w.engine()
        pause = w.left.pause("write_blob")
        sync = asyncio.create_task(engine.sync([rule()]))
        await pause.reached.wait()
        assert len((await engine.plan([rule()]))[0].destinations[0].actions) == 2
        pause.release()
        assert (await sync)[0].destinations[0].outcome == "ok"
        assert {*first.blobs, *second.blobs} <= w.left.store.repositories["app"].blobs


async def test_plan_does_not_wait_for_a_sync_nor_a_sync_for_a_plan() -> None:
    async with world() as w:
        w.put("app", "v1", big("large"))
        engine = w.engine()
        pause = w.left.pause("write_blob")
        sync = asyncio.create_task(engine.sync([rule()]))
        await pause.reached.wait()
        async with asyncio.timeout(30):
            planned = (await engine.plan([rule()]))[0].destinations[0]
        assert [action.outcome for action in planned.actions] == ["planned"]
        pause.release()
        await sync


async def test_plan_counts_nothing_as_planned_for_copying() -> None:
    async with world() as w:
        w.put("app", "v1")
        await w.plan_one()
        assert not any(isinstance(event, TagPlanned) for event in w.seen)


async def test_runs_share_a_blob_that_is_in_hand(tmp_path: Path) -> None:
    async with world(tmp_path, destinations=["left", "right"]) as w:
        shared = layer("shared", 500_000)
        w.put("a", "v1", image("one", [shared]))
        w.put("b", "v1", image("two", [shared]))
        digest = image("one", [shared]).manifest.blobs[1].digest
        engine = w.engine()
        both = [rule("one", repositories=["a"]), rule("two", repositories=["b"])]
        pause = w.source.pause("open_blob", subject=digest)
        first = asyncio.create_task(engine.sync(both[:1]))
        await pause.reached.wait()
        second = asyncio.create_task(engine.sync(both[1:]))
        await settled()
        pause.release()
        await first
        assert (await second)[0].destinations[0].totals.blobs.mounted == 1
        assert w.source.count("open_blob", digest) == 1


async def test_blob_wanted_in_two_repositories_at_once_is_sent_once_and_mounted() -> None:
    async with world() as w:
        shared = layer("shared", 500_000)
        for name in ("a", "b", "c"):
            w.put(name, "v1", image(name, [shared]))
        digest = image("a", [shared]).manifest.blobs[1].digest
        result = await w.sync_one()
        assert w.left.count("write_blob", digest, "done") == 1
        assert w.left.count("mount", digest, "mounted") == 2
        assert only(result, "failed") == []


async def test_plan_tells_that_a_tag_in_step_for_one_rule_is_wanted_by_another() -> None:
    """A plan records nothing, so nothing but what the rules claim in it can tell."""
    async with world(mirrors=["second"]) as w:
        load(w.left.store, "app", "v1", w.put("app", "v1", image("ours")))
        load(w.sites["second"].store, "app", "v1", image("theirs"))
        planned = await w.engine().plan([rule("one"), rule("two", source="second")])
        causes = [failure.cause for result in planned for failure in result.destinations[0].failures]
        assert len(causes) == 1
        assert "rule one" in causes[0]
        assert "rule two" in causes[0]
