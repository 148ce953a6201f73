"""What a destination lost below its tags is found, repaired in the same run, and named."""

from __future__ import annotations

import asyncio

import pytest

from replicator.demo.images import BuiltImage, image, index, layer, load
from replicator.engine.deciding import ASKS_AT_ONCE
from replicator.engine.observe.destination import BATCHES_AT_ONCE
from replicator.engine.result import DestinationResult
from replicator.errors import Denied, Unavailable
from replicator.model.digest import Digest
from replicator.ports import Repository
from tests.engine.world import World, big, rule, settled, until, world
from tests.fakes.clock import FakeClock

DAY = 24 * 3600.0


def _lose(w: World, digest: Digest, repository: str = "app") -> None:
    """The destination's garbage collection took it, as distribution 2.8's takes the children of an index."""
    content = w.left.store.repositories[repository]
    content.manifests.pop(digest, None)
    content.blobs.discard(digest)
    for seen in w.dangling:
        seen.clear()


def _whole(w: World) -> None:
    """The destination has everything again; that it had not was our doing."""
    assert w.left.store.dangling() == []
    for seen in w.dangling:
        seen.clear()


def _actions(result: DestinationResult) -> list[tuple[str | None, str, str | None]]:
    return [(each.tag, each.outcome, each.reason) for each in result.actions]


async def _multi(w: World) -> tuple[BuiltImage, BuiltImage]:
    children = [big("one"), big("two")]
    root = w.put("app", "v1", index(children))
    assert (await w.sync_one()).outcome == "ok"
    w.clear_log()
    return root, children[0]


@pytest.mark.parametrize("what", ["child", "blob", "root"])
async def test_a_recheck_finds_what_is_missing_below_a_tag_and_copies_it_again(what: str) -> None:
    async with world() as w:
        root, child = await _multi(w)
        lost = {"child": child.digest, "blob": child.manifest.blobs[-1].digest, "root": root.digest}[what]
        _lose(w, lost)
        result = await w.sync_one(recheck=True)
        assert _actions(result) == [("v1", "copied", "parts of it are missing at the destination")] or (
            what == "root" and result.totals.tags.copied == 1
        )
        _whole(w)
        assert w.source.count("open_blob") == (1 if what == "blob" else 0)


@pytest.mark.parametrize("what", ["child", "blob"])
async def test_a_run_finds_it_by_itself_when_the_check_is_due(what: str) -> None:
    clock = FakeClock()
    async with world(clock=clock) as w:
        _, child = await _multi(w)
        _lose(w, child.digest if what == "child" else child.manifest.blobs[-1].digest)
        days = 0
        while (result := await w.sync_one()).totals.tags.copied == 0:
            assert result.totals.tags.unchanged == 1
            clock.advance(DAY / 2)
            days += 1
        assert days <= 14
        _whole(w)
        w.clear_log()
        assert (await w.sync_one()).totals.tags.unchanged == 1
        assert w.left.count("read_manifest") == 0


async def test_a_closure_that_is_whole_is_noted_and_costs_nothing_until_it_is_due_again() -> None:
    clock = FakeClock()
    async with world(clock=clock) as w:
        root, _ = await _multi(w)
        clock.advance(3 * DAY)
        await w.sync_one(recheck=True)
        assert w.left.count("read_manifest") == 3
        placed = (await w.state.placements("left", "app"))[root.digest]
        assert placed.verified_at == clock.now()
        assert placed.written_at == clock.now() - 3 * DAY
        w.clear_log()
        await w.sync_one()
        assert [one.method for one in w.left.operations] == ["tags"]


async def test_images_that_share_layers_have_each_layer_asked_for_once() -> None:
    shared = layer("shared", 100_000)
    async with world() as w:
        for number in range(5):
            w.put("app", f"v{number}", image(f"number {number}", [shared]))
        await w.sync_one()
        w.clear_log()
        await w.sync_one(recheck=True)
        digests = [one.subject for one in w.left.operations if one.method == "has_blob"]
        assert len(digests) == len(set(digests))


async def test_a_repository_of_many_tags_is_compared_a_few_batches_at_a_time() -> None:
    async with world() as w:
        built = big("one")
        for site in (w.source, w.left):
            load(site.store, "app", "v0", built)
            site.store.repositories["app"].tags.update(
                {f"v{number}": built.digest for number in range(2_000)}
            )
        w.put("other", "v1")
        load(w.left.store, "other", "v1", image("other:v1"))
        pause = w.left.pause("read_manifest", subject=built.digest)
        run = asyncio.create_task(w.sync_one())
        await pause.reached.wait()
        await until(lambda: w.left.count("read_manifest", outcome="done"))  # of the other repository
        await settled()
        assert w.left.peak["read_manifest"] <= BATCHES_AT_ONCE * ASKS_AT_ONCE + 1
        pause.release()
        assert (await run).totals.tags.unchanged == 2_001


async def test_without_its_state_a_recheck_finds_the_hole_all_the_same() -> None:
    async with world() as w:
        _, child = await _multi(w)
        _lose(w, child.digest)
        w.forget()
        assert (await w.sync_one(recheck=True)).totals.tags.copied == 1
        _whole(w)


@pytest.mark.parametrize("what", ["child", "blob"])
async def test_without_its_state_a_run_checks_what_it_finds_and_copies_what_is_missing(what: str) -> None:
    async with world() as w:
        _, child = await _multi(w)
        _lose(w, child.digest if what == "child" else child.manifest.blobs[-1].digest)
        w.forget()
        result = await w.sync_one()
        assert _actions(result) == [("v1", "copied", "parts of it are missing at the destination")]
        assert w.source.count("open_blob") == (1 if what == "blob" else 0)
        _whole(w)


async def test_what_is_found_whole_at_a_destination_is_checked_in_that_run_and_then_in_its_turn() -> None:
    async with world() as w:
        root, _ = await _multi(w)
        w.forget()
        assert (await w.sync_one()).totals.tags.unchanged == 1
        assert (w.left.count("read_manifest"), w.left.count("has_blob")) == (3, 4)
        assert list(await w.state.placements("left", "app")) == [root.digest]
        w.clear_log()
        assert (await w.sync_one()).totals.tags.unchanged == 1
        assert (w.left.count("read_manifest"), w.left.count("has_blob")) == (0, 0)


async def test_an_image_that_somebody_else_put_there_is_checked_when_it_is_first_seen() -> None:
    async with world() as w:
        w.put("app", "v1")
        await w.sync_one()
        other = big("other")
        w.put("app", "v1", other)
        load(w.left.store, "app", "v1", other)
        _lose(w, other.manifest.blobs[-1].digest)
        assert (await w.sync_one()).totals.tags.copied == 1
        _whole(w)


async def test_a_destination_that_does_not_let_us_read_is_not_called_incomplete() -> None:
    async with world() as w:
        await _multi(w)
        w.left.fail("read_manifest", Denied("left", "read manifest", "no", repository="app"), times=9)
        result = await w.sync_one(recheck=True)
        assert (result.outcome, result.totals.tags.unchanged) == ("ok", 1)


async def test_a_check_that_fails_is_a_failure_and_no_hole() -> None:
    async with world() as w:
        await _multi(w)
        w.left.fail("has_blob", Unavailable("left", "check blob", "down", repository="app"), times=99)
        result = await w.sync_one(recheck=True)
        assert result.outcome == "failed"
        assert w.left.count("write_manifest") == 0


async def test_a_hole_that_cannot_be_filled_says_whose_fault_it_is() -> None:
    async with world() as w:
        _, child = await _multi(w)
        lost = child.manifest.blobs[-1].digest
        _lose(w, lost)
        w.source.store.repositories["app"].blobs.discard(lost)
        result = await w.sync_one(recheck=True)
        assert [failure.site for failure in result.failures] == ["source"]
        for seen in w.dangling:
            seen.clear()


async def test_a_registry_that_accepts_what_it_deleted_is_not_believed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Distribution with a cache of blob descriptors, its garbage collection beside it: 201, and then 404."""
    async with world() as w:
        built = w.put("app", "v1", big("large"))
        await w.sync_one()
        w.left.store.delete_tag("app", "v1")

        async def accept(_: Repository, manifest: object, tag: str | None = None) -> Digest:
            return built.digest

        monkeypatch.setattr(type(w.left.repository("app")), "write_manifest", accept)
        result = await w.sync_one()
        assert result.outcome == "failed"
        assert "although" in result.failures[0].cause
        assert set(await w.state.pending("rule", "left", "app")) == {"v1"}


async def test_a_repair_beside_another_run_does_not_send_twice() -> None:
    async with world() as w:
        _, child = await _multi(w)
        _lose(w, child.manifest.blobs[-1].digest)
        engine = w.engine()
        pause = w.left.pause("write_blob")
        first = asyncio.create_task(engine.sync([rule()], recheck=True))
        await pause.reached.wait()
        second = asyncio.create_task(engine.sync([rule()], recheck=True))
        await until(lambda: w.left.count("write_blob") == 1)
        pause.release()
        await first
        await second
        assert w.left.count("write_blob", outcome="done") == 1
        _whole(w)


async def test_where_parts_are_lost_the_rest_is_not_believed_before_it_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Distribution's cache of blob descriptors answers HEAD for what its garbage collection took with the child."""
    async with world() as w:
        _, child = await _multi(w)
        gone = child.manifest.blobs[-1].digest
        _lose(w, child.digest)
        _lose(w, gone)
        repository = type(w.left.repository("app"))
        asked = repository.has_blob

        async def remembered(self: Repository, digest: Digest, size: int | None = None) -> bool:
            return digest == gone or await asked(self, digest, size)  # type: ignore[arg-type]

        monkeypatch.setattr(repository, "has_blob", remembered)
        assert (await w.sync_one(recheck=True)).totals.tags.copied == 1
        _whole(w)
        assert w.left.count("write_blob", gone, "done") == 1
        assert w.source.count("open_blob", gone) == 1
        assert w.left.count("write_blob") == 1, "what can be read is not sent again"
