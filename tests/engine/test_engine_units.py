"""Repositories are the unit of work: what is slow, dark or wrong in one says nothing about the others."""

from __future__ import annotations

import asyncio
import re

import pytest

from replicator.demo.images import image, layer, load
from replicator.engine.context import RunListener, RunScope
from replicator.errors import NotFound, Rejected, SiteError, Unavailable
from replicator.events import RunEnded, TagDone
from replicator.policy.pattern import parse_tag_pattern
from replicator.policy.rule import Rename, Replacement, TagSelection
from replicator.ports import Standing
from tests.engine.world import World, big, rule, settled, until, world
from tests.fakes.clock import FakeClock
from tests.fakes.memory import Operation

DAY = 24 * 3600.0


def _server_error(operation: Operation) -> SiteError:
    return Unavailable(
        "source", "resolve tag", "500 Internal Server Error", repository=operation.repository, answered=True
    )


async def _standing(w: World) -> Standing:
    return (await w.state.standings(["rule"]))[0]


async def test_a_slow_blob_does_not_delay_what_is_pushed_elsewhere() -> None:
    """The next scan leaves the repository to the run that works on it, and copies what is new in the others."""
    async with world() as w:
        w.put("slow", "v1", big("slow"))
        w.put("fast", "v1")
        engine = w.engine()
        pause = w.left.pause("write_blob", subject=big("slow").manifest.blobs[-1].digest)
        scanned: list[str] = []
        busy: list[str] = []
        first = asyncio.create_task(
            engine.sync(
                [rule()],
                unattended=True,
                listener=RunListener(scanned=lambda _, destination: scanned.append(destination)),
            )
        )
        await pause.reached.wait()
        await until(lambda: scanned == ["left"])  # the next scan may begin
        w.put("fast", "v2")
        w.put("slow", "v2")
        w.put("new", "v1")
        second = await engine.sync(
            [rule()],
            unattended=True,
            listener=RunListener(busy=lambda *where: busy.append(where[2])),
        )
        assert second[0].destinations[0].outcome == "ok"
        assert {name: set(tags) for name, tags in w.tags().items()} == {"fast": {"v1", "v2"}, "new": {"v1"}}
        assert busy == []
        assert engine.is_busy(rule(), "left", "slow")
        pause.release()
        await first
        assert busy == ["slow"]  # once it is free
        await engine.sync([rule()], unattended=True, scope=RunScope({"slow": None}))
        assert w.tags() == w.tags("source")


async def test_the_repository_of_a_run_is_told_when_it_is_through() -> None:
    async with world() as w:
        w.put("a", "v1", big("a"))
        w.put("b", "v1", big("b"))
        done: list[str] = []
        pause = w.left.pause("write_blob", subject=big("a").manifest.blobs[-1].digest)
        run = asyncio.create_task(
            w.engine().sync(
                [rule()], listener=RunListener(repository_done=lambda *where: done.append(where[2]))
            )
        )
        await pause.reached.wait()
        await until(lambda: done == ["b"])
        pause.release()
        await run
        assert done == ["b", "a"]


async def test_two_rules_that_meet_in_a_repository_go_one_after_the_other() -> None:
    async with world() as w:
        w.put("app", "v1", big("one"))
        engine = w.engine()
        pause = w.left.pause("write_blob")
        first = asyncio.create_task(engine.sync([rule("one")]))
        await pause.reached.wait()
        second = asyncio.create_task(engine.sync([rule("two")]))
        await asyncio.sleep(0.01)
        assert w.left.count("tags") == 1
        pause.release()
        await first
        assert (await second)[0].destinations[0].totals.tags.unchanged == 1


async def test_twelve_tags_that_cannot_be_resolved_stop_nobody() -> None:
    async with world() as w:
        for number in range(40):
            w.put("good", f"v{number}", image("same"))
        for number in range(12):
            w.put("bad", f"v{number}", image("same"))
        w.source.fail("resolve", _server_error, times=99, repository="bad")
        result = await w.sync_one()
        assert (result.outcome, result.totals.tags.copied, result.totals.tags.failed) == ("partial", 40, 12)
        pending = await w.state.pending("rule", "left", "bad")
        assert {each.digest for each in pending.values()} == {None}
        assert len(pending) == 12


async def test_a_tag_that_cannot_be_resolved_says_nothing_about_its_neighbours() -> None:
    clock = FakeClock()
    async with world(clock=clock) as w:
        w.put("app", "bad")
        w.put("app", "v1")
        await w.sync_one()
        began = clock.now()
        w.source.fail("resolve", _server_error, times=99, subject="bad")
        for _ in range(10):
            clock.advance(DAY)
            await w.sync_one()
        clock.advance(60.0)
        w.put("app", "fresh")
        w.seen.clear()
        await w.sync_one()
        [delay] = [each.delay for each in w.seen if isinstance(each, TagDone) and each.tag == "fresh"]
        assert delay == pytest.approx(60.0, abs=1)
        standing = await _standing(w)
        assert (standing.in_step, standing.pending, standing.failed) == (2, 1, 1)
        assert (standing.oldest_repository, standing.oldest_tag) == ("app", "bad")
        assert standing.oldest_pending == pytest.approx(began, abs=1)
        assert standing.last_look == pytest.approx(clock.now(), abs=1)
        w.source._faults.clear()
        assert (await w.sync_one()).outcome == "ok"
        assert (await _standing(w)).pending == 0


async def test_tags_of_a_destination_that_cannot_be_asked_are_unknown() -> None:
    async with world() as w:
        w.put("app", "v1")
        w.put("app", "v2")
        w.put("web", "v1")
        await w.sync_one()
        w.left.fail(
            "tags", Unavailable("left", "list tags", "down", repository="app"), times=9, repository="app"
        )
        await w.sync_one()
        standing = await _standing(w)
        assert (standing.in_step, standing.unknown, standing.pending) == (1, 2, 0)


async def test_completeness_of_a_repository_does_not_depend_on_the_others() -> None:
    clock = FakeClock()
    async with world(clock=clock) as w:
        w.put("app", "v1")
        w.put("web", "v1")
        await w.sync_one()
        clock.advance(100.0)
        w.source.fail("tags", Unavailable("source", "list tags", "500", repository="app"), repository="app")
        await w.sync_one()
        units = {unit.repository: unit for unit in await w.state.units("rule")}
        assert units["web"].source_complete_at == pytest.approx(clock.now(), abs=1)
        assert units["app"].source_complete_at == pytest.approx(clock.now() - 100.0, abs=1)
        assert (await _standing(w)).look_repository == "app"


async def test_a_new_digest_under_a_postponed_tag_is_tried_at_once() -> None:
    async with world() as w:
        w.put("app", "v1", image("bad"))
        w.left.fail("write_manifest", Rejected("left", "write manifest", "no"))
        await w.sync_one()
        assert (await w.sync_one(unattended=True)).totals.tags.failed == 1
        good = w.put("app", "v1", image("good"))
        assert (await w.sync_one(unattended=True)).totals.tags.copied == 1
        assert w.tags()["app"]["v1"] == good.digest


async def test_a_clock_that_ran_ahead_for_one_run_blinds_nothing() -> None:
    clock = FakeClock()
    async with world(clock=clock) as w:
        w.put("app", "v1", image("one"))
        w.put("app", "bad")
        w.left.fail("write_manifest", Rejected("left", "write manifest", "no"), subject="bad")
        clock.advance(3650 * DAY)
        await w.sync_one()
        clock.advance(3600.0 - 3650 * DAY)
        load(w.left.store, "app", "v1", image("somebody else's"))
        result = await w.sync_one(unattended=True)
        assert (result.outcome, result.totals.tags.copied) == ("ok", 2)
        assert w.tags() == w.tags("source")


async def test_a_tag_that_is_gone_everywhere_leaves_its_name_to_others() -> None:
    async with world(mirrors=["second"]) as w:
        first, second = rule("first"), rule("second", source="second")
        w.put("app", "v1", image("first"))
        await w.engine([first, second]).sync([first])
        w.source.store.delete_tag("app", "v1")
        w.left.store.delete_tag("app", "v1")
        load(w.sites["second"].store, "app", "v1", image("second"))
        [result] = await w.engine([first, second]).sync([second])
        assert result.destinations[0].outcome == "ok"
        assert w.tags()["app"]["v1"] == image("second").digest
        assert {belief.rule for belief in (await w.state.beliefs("left", "app")).values()} == {"second"}


async def test_a_belief_ends_with_its_tag_at_the_destination() -> None:
    async with world() as w:
        w.put("app", "v1")
        w.put("app", "v2")
        await w.sync_one()
        w.source.store.delete_tag("app", "v1")
        w.left.store.delete_tag("app", "v1")
        await w.sync_one()
        assert set(await w.state.beliefs("left", "app")) == {"v2"}
        assert set(await w.state.placements("left", "app")) == {image("app:v2").digest}


IMMUTABLE = TagSelection(immutable=(parse_tag_pattern("v*"),))


async def test_an_immutable_tag_that_another_rule_put_there_is_not_called_ours() -> None:
    async with world(mirrors=["second"]) as w:
        first, second = rule("first"), rule("second", source="second", selection=IMMUTABLE)
        w.put("app", "v1", image("first"))
        load(w.sites["second"].store, "app", "v1", image("second"))
        engine = w.engine([first, second])
        await engine.sync([first])
        [result] = await engine.sync([second])
        assert result.destinations[0].outcome == "failed"
        assert "rule first" in result.destinations[0].failures[0].cause
        assert result.destinations[0].totals.tags.unchanged == 0


async def test_an_overwritten_immutable_tag_is_what_its_source_names_now() -> None:
    """What we once put there is gone at the source: to insist on it would fail for ever."""
    async with world() as w:
        old = w.put("app", "v1", image("old"))
        one = rule(selection=IMMUTABLE)
        await w.sync_one(one)
        new = w.put("app", "v1", image("new"))
        w.source.store.delete_manifest("app", old.digest)
        load(w.left.store, "app", "v1", image("somebody else's"))
        result = await w.sync_one(one, recheck=True)
        assert result.outcome == "ok"
        assert w.tags()["app"]["v1"] == new.digest


async def test_a_listing_that_fails_for_one_of_two_sources_ends_nothing_pending() -> None:
    one = rule(rename=Rename(replacements=(Replacement(re.compile(".+"), "all"),)))
    async with world() as w:
        w.put("a", "v1")
        w.put("b", "v2")
        w.left.fail("write_manifest", Rejected("left", "write manifest", "no"), subject="v1")
        await w.sync_one(one)
        assert set(await w.state.pending("rule", "left", "all")) == {"v1"}
        w.left.fail("tags", Unavailable("left", "list tags", "down", repository="all"))
        pause = w.source.pause("resolve", subject="v2")
        run = asyncio.create_task(w.sync(one))
        await pause.reached.wait()
        await until(lambda: w.left.count("tags") == 1)
        await settled()
        pause.release()
        await run
        assert set(await w.state.pending("rule", "left", "all")) == {"v1"}


async def test_runs_more_than_a_quarter_of_an_hour_apart_share_a_blob_in_progress() -> None:
    clock = FakeClock()
    async with world(clock=clock) as w:
        shared = layer("shared", 500_000)
        w.put("a", "v1", image("one", [shared]))
        w.put("b", "v1", image("two", [shared]))
        digest = image("one", [shared]).manifest.blobs[1].digest
        engine = w.engine()
        pause = w.source.pause("open_blob", subject=digest)
        first = asyncio.create_task(engine.sync([rule("one", repositories=["a"])]))
        await pause.reached.wait()
        clock.advance(16 * 60.0)
        second = asyncio.create_task(engine.sync([rule("two", repositories=["b"])]))
        await until(lambda: w.left.count("tags") == 2)
        pause.release()
        await first
        assert (await second)[0].destinations[0].totals.blobs.mounted == 1
        assert w.source.count("open_blob", digest) == 1
        assert w.left.count("write_blob", digest, "done") == 1


async def test_the_end_of_a_run_names_the_first_causes() -> None:
    async with world() as w:
        for number in range(5):
            w.put(f"app{number}", "v1")
        w.left.fail(
            "write_manifest",
            lambda one: Rejected("left", "write manifest", "no room", repository=one.repository),
            times=9,
        )
        await w.sync_one()
        [ended] = [each for each in w.seen if isinstance(each, RunEnded)]
        assert len(ended.causes) == 3
        assert all("write manifest: no room" in cause for cause in ended.causes)


async def test_a_repository_that_vanished_has_no_unit_and_nothing_pending() -> None:
    async with world() as w:
        w.put("app", "v1")
        w.put("gone", "v1")
        w.source.fail("resolve", NotFound("source", "resolve tag", "no"), repository="gone")
        await w.sync_one()
        del w.source.store.repositories["gone"]
        await w.sync_one()
        assert [unit.repository for unit in await w.state.units("rule")] == ["app"]
