"""Invariant 11 and what a signal does: begin nothing new, finish what runs, keep what is pending, leave nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from replicator.demo.images import AMD64, ARM64, image, index, layer, load
from replicator.engine import run as module
from replicator.engine.context import RunListener
from replicator.engine.result import RuleResult
from replicator.errors import StateError, Unavailable
from replicator.events import RunEnded
from replicator.policy.rule import TagSelection
from replicator.ports import RunRow, Standing
from replicator.state.memory import MemoryState
from tests.engine.world import World, big, only, rule, settled, until, world


async def _many(w: World, count: int = 100) -> None:
    for number in range(count):
        w.put("app", f"v{number:03}", image(f"{number}", layers=1))


async def test_drain_lets_running_copies_finish_and_begins_nothing_new() -> None:
    async with world() as w:
        await _many(w, 200)
        engine = w.engine()
        pause = w.left.pause("write_manifest")
        run = asyncio.create_task(engine.sync([rule()]))
        await pause.reached.wait()
        await settled()
        running = w.left.count("write_manifest")
        engine.drain()
        await settled()
        pause.release()
        result = (await run)[0].destinations[0]
        assert result.outcome == "interrupted"
        assert 0 < result.totals.tags.copied == len(w.tags()["app"]) == running < 200
        assert result.totals.tags.failed == 0
        pending = await w.state.pending("rule", "left", "app")
        assert len(pending) == 200 - running  # pending is kept, and nothing of it looks failed
        assert {(one.attempts, one.error) for one in pending.values()} == {(0, "")}
        assert (await w.sync_one()).outcome == "ok"
        assert len(w.tags()["app"]) == 200


async def test_drain_ends_the_look_at_once() -> None:
    async with world() as w:
        w.put("app", "v1")
        engine = w.engine()
        pause = w.source.pause("resolve")
        run = asyncio.create_task(engine.sync([rule()]))
        await pause.reached.wait()
        engine.drain()
        async with asyncio.timeout(30):
            result = (await run)[0].destinations[0]
        assert result.outcome == "interrupted"
        assert (await w.state.standings(["rule"]))[0].last_look is None


async def test_run_that_a_drain_finds_done_is_not_interrupted() -> None:
    async with world() as w:
        w.put("app", "v1")
        engine = w.engine()
        await engine.sync([rule()])
        engine.drain()
        assert w.tags()["app"].keys() == {"v1"}
        result = (await engine.sync([rule()]))[0].destinations[0]  # and nothing begins after it
        assert result.outcome == "interrupted"


async def test_run_whose_last_copies_end_within_a_drain_is_not_interrupted() -> None:
    async with world() as w:
        await _many(w, 3)
        engine = w.engine()
        pause = w.left.pause("write_manifest")
        run = asyncio.create_task(engine.sync([rule()]))
        await pause.reached.wait()
        await settled()
        engine.drain()
        await settled()
        pause.release()
        result = (await run)[0].destinations[0]
        assert (result.outcome, result.totals.tags.copied) == ("ok", 3)
        assert len(w.tags()["app"]) == 3
        [standing] = await w.state.standings(["rule"])
        assert standing.last_look is not None
        assert standing.last_success is not None


async def test_one_runs_drain_leaves_the_other_runs_alone() -> None:
    async with world(destinations=["left", "right"]) as w:
        await _many(w, 3)
        engine, drain = w.engine(), asyncio.Event()
        pause = w.source.pause("resolve")
        drained = asyncio.create_task(engine.sync([rule("a")], drain=drain))
        other = asyncio.create_task(engine.sync([rule("b", destinations=["right"])]))
        await pause.reached.wait()
        drain.set()
        assert (await drained)[0].destinations[0].outcome == "interrupted"
        pause.release()
        assert (await other)[0].destinations[0].outcome == "ok"
        assert len(w.tags("right")["app"]) == 3


@pytest.mark.parametrize("method", ["write_blob", "write_manifest", "has_blob", "mount"])
async def test_what_hangs_at_a_destination_is_ended_when_the_drains_time_is_over(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DRAIN_SECONDS", 0.01)
    async with world(destinations=["left", "right"]) as w:
        shared = layer("shared", 100_000)
        w.put("a", "v1", image("one", [shared]))
        w.put("b", "v1", image("two", [shared]))
        engine = w.engine()
        pause = w.left.pause(method)  # type: ignore[arg-type]
        through: list[str] = []
        run = asyncio.create_task(
            engine.sync(
                [rule(destinations=["left", "right"])],
                listener=RunListener(ended=lambda _, result: through.append(result.destination)),
            )
        )
        await pause.reached.wait()
        await until(lambda: through == ["right"])
        engine.drain()
        left, right = (await run)[0].destinations
        assert left.outcome == "interrupted"
        assert only(left, "interrupted")
        assert right.outcome == "ok"  # it was through before
        assert w.idle
        pause.release()
        assert (await w.sync_one()).outcome == "ok"


async def test_listing_that_hangs_is_ended_when_the_drains_time_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """More than one batch waits for the same listing; their ends must not stand in each other's way."""
    monkeypatch.setattr(module, "DRAIN_SECONDS", 0.01)
    async with world() as w:
        built = image("one for all")
        for number in range(900):
            w.put("app", f"v{number}", built)
        engine = w.engine()
        pause = w.left.pause("tags")
        run = asyncio.create_task(engine.sync([rule()]))
        await pause.reached.wait()
        await until(lambda: w.source.count("resolve", outcome="done") == 900)
        await settled()
        engine.drain()
        assert (await run)[0].destinations[0].outcome == "interrupted"


@pytest.mark.parametrize("twice", [False, True])
async def test_cancelled_run_leaves_nothing_running(tmp_path: Path, *, twice: bool) -> None:
    async with world(tmp_path, destinations=["left", "right"]) as w:
        await _many(w, 40)
        engine = w.engine()
        pause = w.left.pause("write_blob")
        run = asyncio.create_task(engine.sync([rule(destinations=["left", "right"])]))
        await pause.reached.wait()
        if twice:  # a drain first, then a second signal
            engine.drain()
            await settled()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert w.idle
        pause.release()


def _worth_copying(w: World) -> None:
    shared = layer("shared", 150_000)
    w.put("app", "v1", index([image("x", [shared], platform=AMD64), image("y", [shared], platform=ARM64)]))
    w.put("other", "v1", image("z", [shared]))


async def _cancelled_after(w: World, turns: int) -> bool:
    """Runs and cancels after so many turns of the loop; whether the run was still under way."""
    destinations = [name for name in w.sites if name != "source"]
    run: asyncio.Task[list[RuleResult]] = asyncio.create_task(
        w.engine().sync([rule(destinations=destinations)])
    )
    for _ in range(turns):
        await asyncio.sleep(0)
    was_running = not run.done()
    run.cancel()
    try:
        await run
    except asyncio.CancelledError:
        return True
    return was_running


@pytest.mark.parametrize("destinations", [("left",), ("left", "right")])
async def test_cancellation_at_every_turn_leaves_nothing_and_the_next_run_ends_alike(
    tmp_path: Path, destinations: tuple[str, ...]
) -> None:
    for turns in range(600):
        async with world(
            tmp_path / str(turns), destinations=destinations, refuses_dangling=False, chunk_bytes=60_000
        ) as w:
            _worth_copying(w)
            was_running = await _cancelled_after(w, turns)
            assert w.idle
            assert w.spool is not None
            assert all(entry.followers == 0 for entry in w.spool._entries.values())
            # The world checks that no task is left and nothing dangled, here and after the next run.
            results = await w.sync(rule(destinations=destinations))
            assert {one.outcome for one in results[0].destinations} == {"ok"}
            for site in destinations:
                assert w.tags(site) == w.tags("source")
                assert w.sites[site].store.dangling() == []
        if not was_running:
            return
    raise AssertionError("the run did not end: more turns are needed")


async def test_drain_at_every_turn_ends_soon_and_the_next_run_ends_alike() -> None:
    for turns in range(600):
        async with world(refuses_dangling=False) as w, asyncio.timeout(30):
            _worth_copying(w)
            w.source.fail("open_blob", Unavailable("source", "read blob", "reset"))
            engine = w.engine()
            run = asyncio.create_task(engine.sync([rule()]))
            for _ in range(turns):
                await asyncio.sleep(0)
            was_running = not run.done()
            engine.drain()
            drained = (await run)[0].destinations[0]
            assert w.idle
            assert drained.outcome in {"ok", "interrupted"}
            if drained.outcome == "ok":
                assert w.tags() == w.tags("source")
                assert not await w.state.pending("rule", "left", "app")
            assert (await w.sync_one()).outcome == "ok"
            assert w.tags() == w.tags("source")
        if not was_running:
            return
    raise AssertionError("the run did not end: more turns are needed")


async def test_second_run_after_a_kill_moves_only_what_is_missing() -> None:
    async with world() as w:
        built = w.put("app", "v1", big("large", layers=4))
        last = built.manifest.blobs[-1].digest
        pause = w.left.pause("write_blob", subject=last)
        run = asyncio.create_task(w.sync_one())
        await pause.reached.wait()
        await until(lambda: w.left.count("write_blob", outcome="done") == 4)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        pause.release()
        w.clear_log()
        result = await w.sync_one()
        assert result.totals.blobs.present == 4
        assert result.totals.blobs.copied == 1
        assert w.source.count("open_blob") == 1


async def test_drained_look_calls_nothing_gone_and_forgets_nothing_pending() -> None:
    async with world() as w:
        await _many(w, 5)
        w.left.fail("write_manifest", Unavailable("left", "write manifest", "reset"), times=99)
        await w.sync_one()
        pending = set(await w.state.pending("rule", "left", "app"))
        assert pending
        engine = w.engine()
        pause = w.left.pause("tags")
        run = asyncio.create_task(engine.sync([rule(selection=TagSelection())]))
        await pause.reached.wait()
        engine.drain()
        pause.release()
        result = (await run)[0].destinations[0]
        assert set(await w.state.pending("rule", "left", "app")) == pending
        assert only(result, "kept") == []


async def test_drained_run_asks_the_destination_nothing_more() -> None:
    async with world() as w:
        w.put("app", "v1")
        load(w.left.store, "app", "v1", image("theirs"))
        engine = w.engine()
        pause = w.left.pause("tags")
        run = asyncio.create_task(engine.sync([rule()]))
        await pause.reached.wait()
        await settled()
        engine.drain()
        pause.release()
        await run
        assert w.left.count("resolve") == 0


async def test_run_that_is_ended_while_it_is_being_closed_is_closed_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closing, go_on = asyncio.Event(), asyncio.Event()

    class Slow(MemoryState):
        async def close_run(self, row: RunRow) -> Standing:
            return await asyncio.shield(asyncio.create_task(self._close(row)))  # as `StoredState` does it

        async def _close(self, row: RunRow) -> Standing:
            closing.set()
            await go_on.wait()
            return await super().close_run(row)

    monkeypatch.setattr(module, "DRAIN_SECONDS", 0.0)
    async with world() as w:
        w.put("app", "v1")
        state = w.state = Slow(w.clock)
        engine = w.engine()
        run = asyncio.create_task(engine.sync([rule()]))
        await closing.wait()
        engine.drain()
        await settled()
        go_on.set()
        result = (await run)[0].destinations[0]
        assert result.outcome == "ok"
        assert [row.outcome for row in await state.runs("rule", "left")] == ["ok"]
        assert [event.outcome for event in w.seen if isinstance(event, RunEnded)] == ["ok"]


async def test_run_that_could_not_be_closed_is_closed_at_its_end() -> None:
    class Busy(MemoryState):
        tries = 0

        async def close_run(self, row: RunRow) -> Standing:
            self.tries += 1
            if self.tries == 1:
                raise StateError("state: busy")
            return await super().close_run(row)

    async with world() as w:
        w.put("app", "v1")
        state = w.state = Busy(w.clock)
        await w.sync_one()
        assert state.tries == 2
        assert len([event for event in w.seen if isinstance(event, RunEnded)]) == 1
