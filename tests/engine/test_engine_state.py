"""Invariant 4: the state is a hint about the world."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pytest

from replicator.demo.images import image, index, layer, load
from replicator.engine.context import RunScope
from replicator.errors import Denied, NotFound, Rejected, StateError, Unavailable
from replicator.events import TagDone
from replicator.model.digest import Digest
from replicator.policy.rule import Rename, Replacement
from replicator.ports import Entry, Missing, Placed, Seen, TagBelief
from replicator.state.memory import MemoryState
from tests.engine.world import World, big, only, rule, world
from tests.fakes.clock import FakeClock

DAY = 24 * 3600.0


async def _two_tags(w: World) -> None:
    w.put("app", "v1")
    w.put("app", "v2", index([image("x"), image("y")]))
    assert (await w.sync_one()).outcome == "ok"
    w.clear_log()


async def test_nothing_to_do_asks_the_source_once_a_tag_and_the_destination_for_its_listing_only() -> None:
    async with world() as w:
        await _two_tags(w)
        result = await w.sync_one()
        assert (result.outcome, result.totals.tags.unchanged, result.actions) == ("ok", 2, [])
        assert sorted(one.method for one in w.source.operations) == [
            "repositories",
            "resolve",
            "resolve",
            "tags",
        ]
        assert [one.method for one in w.left.operations] == ["tags"]


async def test_without_its_state_it_only_asks_more() -> None:
    async with world() as w:
        await _two_tags(w)
        w.forget()
        result = await w.sync_one()
        assert (result.outcome, result.totals.tags.unchanged, result.actions) == ("ok", 2, [])
        assert w.left.count("write_blob") == w.left.count("write_manifest") == 0
        assert result.totals.bytes.written == 0
        w.clear_log()
        await w.sync_one()
        assert w.left.count("resolve") == 0  # what was asked is believed from now on


async def test_without_its_state_half_done_work_is_finished_not_begun_again() -> None:
    async with world() as w:
        built = w.put("app", "v1", big("half", layers=3))
        first, second, *_ = built.manifest.blobs[1:]
        for blob in (first, second):
            w.left.store.put_blob("app", built.blobs[blob.digest])
        result = await w.sync_one()
        assert result.totals.blobs.present == 2
        assert w.left.count("write_blob", first.digest) == 0


async def test_tag_removed_behind_our_back_is_copied_again_because_the_listing_lacks_it() -> None:
    async with world() as w:
        await _two_tags(w)
        w.left.store.delete_tag("app", "v1")
        result = await w.sync_one()
        assert [(action.tag, action.outcome) for action in result.actions] == [("v1", "copied")]
        assert set(w.tags()["app"]) == {"v1", "v2"}
        assert result.totals.blobs.copied == 0


async def test_repository_removed_behind_our_back_is_copied_again() -> None:
    async with world(refuses_dangling=False) as w:
        await _two_tags(w)
        del w.left.store.repositories["app"]
        result = await w.sync_one()
        assert result.totals.tags.copied == 2
        assert w.left.store.dangling() == []


async def test_tag_changed_behind_our_back_is_seen_when_its_recheck_is_due_and_not_before() -> None:
    clock = FakeClock()
    async with world(clock=clock) as w:
        built = w.put("app", "v1")
        await w.sync_one()
        load(w.left.store, "app", "v1", image("somebody else's"))
        assert (await w.sync_one()).totals.tags.unchanged == 1
        clock.advance(DAY + 1)
        result = await w.sync_one()
        assert [action.reason for action in result.actions] == ["the destination has something else"]
        assert w.tags()["app"]["v1"] == built.digest


async def test_recheck_sees_a_changed_tag_at_once() -> None:
    async with world() as w:
        built = w.put("app", "v1")
        await w.sync_one()
        load(w.left.store, "app", "v1", image("somebody else's"))
        await w.sync_one(recheck=True)
        assert w.tags()["app"]["v1"] == built.digest


async def _copy_240_tags(w: World) -> None:
    built = image("one for all")
    for number in range(240):
        w.put("app", f"v{number}", built)
    await w.sync_one()


async def _tags_due(w: World, clock: FakeClock, hours: int) -> list[int]:
    """How many tags are asked for in each of the next hours."""
    asked = []
    for _ in range(hours):
        clock.advance(3600)
        w.clear_log()
        await w.sync_one()
        asked.append(w.left.count("resolve"))
    return asked


async def test_rechecks_of_a_cold_copy_are_spread_over_the_period() -> None:
    clock = FakeClock()
    async with world(clock=clock) as w:
        await _copy_240_tags(w)
        first = await _tags_due(w, clock, 24)
        assert sum(first) == 240  # each once a day
        assert max(first) < 40
        assert await _tags_due(w, clock, 24) == first  # and each keeps its place


async def test_rechecks_stay_spread_after_all_were_asked_for_at_once() -> None:
    """`sync --recheck` asks for everything; that must not make everything due at the same hour of the next day."""
    clock = FakeClock()
    async with world(clock=clock) as w:
        await _copy_240_tags(w)
        await w.sync_one(recheck=True)
        assert max(await _tags_due(w, clock, 24)) < 40


async def test_rechecks_stay_spread_after_a_destination_was_wiped() -> None:
    clock = FakeClock()
    async with world(clock=clock) as w:
        await _copy_240_tags(w)
        del w.left.store.repositories["app"]
        assert (await w.sync_one()).totals.tags.copied == 240
        assert max(await _tags_due(w, clock, 24)) < 40


@pytest.mark.parametrize("mount", [True, False])
@pytest.mark.parametrize("destinations", [("left",), ("left", "right")])
async def test_wrong_hint_where_a_blob_lies_heals_within_the_run(
    tmp_path: Path, *, mount: bool, destinations: tuple[str, ...]
) -> None:
    async with world(tmp_path, destinations=destinations, mount=mount) as w:
        built = w.put("app", "v1", big("hinted"))
        for site in destinations:
            for digest in built.blobs:
                w.state.record(Seen(site, "gone", digest))
        results = await w.sync(rule(destinations=destinations))
        assert [one.outcome for one in results[0].destinations] == ["ok"] * len(destinations)
        for site in destinations:
            assert w.tags(site)["app"]["v1"] == built.digest
        # The hint cost a request, and no byte of the source.
        read = sum(one.bytes for one in w.source.operations if one.method == "open_blob")
        assert read == sum(len(data) for data in built.blobs.values())


async def test_wrong_hint_is_taken_back() -> None:
    async with world() as w:
        built = w.put("app", "v1", big("hinted"))
        digest = built.manifest.blobs[1].digest
        w.state.record(Seen("left", "gone", digest))
        await w.sync_one()
        assert await w.state.whereabouts("left", [digest]) == {digest: ["app"]}


async def test_remembered_blob_is_mounted_across_runs() -> None:
    async with world() as w:
        shared = layer("shared", 200_000)
        w.put("first", "v1", image("one", [shared]))
        await w.sync_one()
        w.clear_log()
        w.put("second", "v1", image("two", [shared]))
        result = await w.sync_one()
        assert result.totals.blobs.mounted == 1
        assert len(shared.data) not in {one.bytes for one in w.source.operations}


async def test_belief_for_something_else_than_is_there_is_only_a_reason_to_ask() -> None:
    async with world() as w:
        built = w.put("app", "v1")
        await w.sync_one()
        zero = Digest(f"sha256:{'0' * 64}")
        wrong = TagBelief("v1", zero, zero, "rule", w.clock.now(), w.clock.now())
        w.state.record(Placed("rule", "left", wrong, "app"))
        result = await w.sync_one()
        assert (result.outcome, result.totals.bytes.written) == ("ok", len(built.manifest.body))
        assert result.totals.blobs.copied == 0


async def test_failed_tag_is_pending_with_its_error_and_attempts_and_ends_with_success() -> None:
    clock = FakeClock()
    async with world(clock=clock) as w:
        w.put("app", "v1")
        refused = Rejected("left", "write manifest", "no", repository="app")
        w.left.fail("write_manifest", refused, times=2)
        for attempts in (1, 2):
            await w.sync_one()
            pending = (await w.state.pending("rule", "left", "app"))["v1"]
            assert (pending.attempts, pending.reason) == (attempts, "rejected")
            assert pending.error == "left: app: write manifest: no"
        await w.sync_one()
        assert await w.state.pending("rule", "left", "app") == {}


async def test_change_is_dated_by_the_last_complete_look_that_still_agreed() -> None:
    clock = FakeClock()
    async with world(clock=clock) as w:
        w.put("app", "v1")
        await w.sync_one()
        agreed = clock.now()
        clock.advance(300)
        w.put("app", "v2")
        w.left.fail("write_manifest", Rejected("left", "write manifest", "no"), times=9)
        for _ in range(2):  # a second failure does not date it anew
            await w.sync_one()
            assert (await w.state.pending("rule", "left", "app"))["v2"].since == agreed
            clock.advance(300)
        w.left._faults.clear()
        await w.sync_one()
        [delay] = [
            event.delay
            for event in w.seen
            if isinstance(event, TagDone) and event.tag == "v2" and event.delay
        ]
        assert delay == clock.now() - agreed


async def test_unattended_run_leaves_a_failed_tag_alone_until_its_time() -> None:
    clock = FakeClock()
    async with world(clock=clock) as w:
        w.put("app", "v1")
        w.left.fail("write_manifest", Rejected("left", "write manifest", "no"))
        await w.sync_one()
        w.clear_log()
        result = await w.sync_one(unattended=True)
        assert (result.outcome, result.totals.tags.failed) == ("failed", 1)
        assert "no" in (result.actions[0].reason or "")
        assert w.left.count("write_manifest") == 0
        clock.advance(31)
        assert (await w.sync_one(unattended=True)).outcome == "ok"


async def test_attended_run_tries_a_failed_tag_at_once() -> None:
    async with world() as w:
        w.put("app", "v1")
        w.left.fail("write_manifest", Rejected("left", "write manifest", "no"))
        await w.sync_one()
        assert (await w.sync_one()).outcome == "ok"


@pytest.mark.parametrize("how", ["removed", "deselected"])
async def test_tag_no_longer_wanted_is_no_longer_pending(how: str) -> None:
    """It failed, and then nobody wanted it any more: it must not hold the lag up for ever."""
    async with world() as w:
        w.put("app", "v1")
        w.put("app", "v2")
        w.left.fail("write_manifest", Rejected("left", "write manifest", "no"), subject="v2")
        await w.sync_one()
        assert set(await w.state.pending("rule", "left", "app")) == {"v2"}
        if how == "removed":
            w.source.store.delete_tag("app", "v2")
        await w.sync_one(rule(tags=["v1"] if how == "deselected" else ["v*"]))
        assert await w.state.pending("rule", "left", "app") == {}
        standing = (await w.state.standings(["rule"]))[0]
        assert (standing.pending, standing.last_success is None) == (0, False)


@pytest.mark.parametrize("how", ["removed", "deselected"])
async def test_repository_no_longer_wanted_has_nothing_pending(how: str) -> None:
    """No look comes by it any more, and its tags must not hold the lag up for ever."""
    async with world() as w:
        w.put("app", "v1")
        w.put("gone", "v1")
        w.left.fail("write_manifest", Rejected("left", "write manifest", "no"), repository="gone")
        await w.sync_one()
        if how == "removed":
            del w.source.store.repositories["gone"]
        await w.sync_one(rule(repositories=["app"] if how == "deselected" else ["**"]))
        assert await w.state.pending("rule", "left", "gone") == {}
        standing = (await w.state.standings(["rule"]))[0]
        assert (standing.pending, standing.last_success is None) == (0, False)


@pytest.mark.parametrize(
    "how", ["listing broke off", "narrowed", "planned", "drained", "target not to be read"]
)
async def test_repository_that_was_not_looked_for_keeps_what_is_pending(how: str) -> None:
    """A listing that broke off is not an empty listing."""
    async with world() as w:
        w.put("app", "v1")
        w.put("later", "v1")
        w.left.fail("write_manifest", Rejected("left", "write manifest", "no"), repository="later")
        await w.sync_one()
        if how != "target not to be read":
            del w.source.store.repositories["later"]
        drain = asyncio.Event()
        if how == "listing broke off":
            w.source.fail("repositories", Rejected("source", "list repositories", "no"))
        elif how == "drained":
            drain.set()
        elif how == "target not to be read":
            w.left.fail("tags", Rejected("left", "list tags", "no"), repository="later")
        if how == "planned":
            await w.plan_one()
        else:
            scope = RunScope({"app": None}) if how == "narrowed" else None
            await w.engine().sync([rule()], scope=scope, drain=drain)
        assert set(await w.state.pending("rule", "left", "later")) == {"v1"}


async def test_what_is_pending_for_another_rule_or_destination_stays() -> None:
    async with world(destinations=["left", "right"]) as w:
        w.put("app", "v1")
        for destination in ("left", "right"):
            refused = Rejected(destination, "write manifest", "no")
            w.sites[destination].fail("write_manifest", refused, times=9)
        await w.sync(rule("one"), rule("two", destinations=["left", "right"]))
        del w.source.store.repositories["app"]
        await w.engine().sync([rule("one")])
        assert [
            set(await w.state.pending(name, destination, "app"))
            for name, destination in (("one", "left"), ("two", "left"), ("two", "right"))
        ] == [set(), {"v1"}, {"v1"}]


async def test_tag_that_moved_back_before_it_was_copied_is_no_longer_pending() -> None:
    async with world() as w:
        first = w.put("app", "v1", image("first"))
        await w.sync_one()
        w.put("app", "v1", image("second"))
        w.left.fail("write_manifest", Rejected("left", "write manifest", "no"))
        await w.sync_one()
        w.put("app", "v1", first)
        assert (await w.sync_one()).totals.tags.unchanged == 1
        assert await w.state.pending("rule", "left", "app") == {}


async def test_tag_asked_for_by_name_and_removed_behind_our_back_is_copied_again() -> None:
    one = rule(repositories=["app"], tags=["v1"])  # so few that no listing is read
    async with world() as w:
        w.put("app", "v1")
        await w.sync_one(one)
        w.left.store.delete_tag("app", "v1")
        assert (await w.sync_one(one)).totals.tags.copied == 1
        assert set(w.tags()["app"]) == {"v1"}


async def test_repository_that_has_no_tag_yet_is_not_taken_for_a_new_one() -> None:
    """A killed run left blobs there; such a repository has no tag list, and small blobs need not go again."""
    async with world() as w:
        built = w.put("app", "v1")
        for digest, data in built.blobs.items():
            w.left.store.put_blob("app", data)
            w.state.record(Seen("left", "app", digest))
        w.left.fail("tags", NotFound("left", "list tags", "no such repository", repository="app"))
        assert (await w.sync_one()).outcome == "ok"
        assert w.left.count("write_blob") == 0


async def test_tag_that_could_not_be_looked_at_stays_pending() -> None:
    async with world() as w:
        w.put("app", "v1")
        w.left.fail("write_manifest", Rejected("left", "write manifest", "no"))
        await w.sync_one()
        w.source.fail("tags", Unavailable("source", "list tags", "down"))
        await w.sync_one()
        assert set(await w.state.pending("rule", "left", "app")) == {"v1"}


@pytest.mark.parametrize("prefix", ["", "mirrored-"])
async def test_tag_gone_at_the_source_is_kept_and_said_to_be(prefix: str) -> None:
    one = rule(rename_tag=Rename(prefix=prefix))
    async with world() as w:
        w.put("app", "v1")
        w.put("app", "v2")
        await w.sync_one(one)
        assert (await w.sync_one(one)).actions == []
        w.source.store.delete_tag("app", "v1")
        result = await w.sync_one(one)
        assert result.outcome == "ok"
        assert [(a.action, a.tag, a.outcome) for a in result.actions] == [("keep", f"{prefix}v1", "kept")]
        assert set(w.tags()["app"]) == {f"{prefix}v1", f"{prefix}v2"}
        assert w.left.count("delete_tag") == 0


async def test_two_repositories_in_one_target_do_not_call_each_others_tags_gone() -> None:
    one = rule(rename=Rename(replacements=(Replacement(re.compile(".+"), "all"),)))
    async with world() as w:
        w.put("a", "v1")
        w.put("b", "v2")
        await w.sync_one(one)
        result = await w.sync_one(one)
        assert (result.actions, result.totals.tags.unchanged) == ([], 2)
        w.source.store.delete_tag("b", "v2")
        assert [(a.action, a.tag) for a in (await w.sync_one(one)).actions] == [("keep", "v2")]


async def test_tag_is_not_called_gone_by_a_listing_that_broke_off() -> None:
    async with world() as w:
        await _two_tags(w)
        w.source.fail("tags", Unavailable("source", "list tags", "down"))
        assert only(await w.sync_one(), "kept") == []


async def test_deselected_tag_is_not_called_gone() -> None:
    async with world() as w:
        await _two_tags(w)
        assert only(await w.sync_one(rule(tags=["v1"])), "kept") == []
        assert only(await w.sync_one(rule(tags=["v[1]"])), "kept") == []


async def test_plan_writes_nothing_anywhere(tmp_path: Path) -> None:
    class Watched(MemoryState):
        wrote = False

        def record(self, entry: Entry) -> None:
            self.wrote = True
            super().record(entry)

        def begin(self, rule: str, destination: str) -> None:
            self.wrote = True
            super().begin(rule, destination)

    async with world(tmp_path) as w:
        w.put("app", "v1")
        w.put("app", "v2", schema_free := index([image("x")]))
        w.state = state = Watched(w.clock)
        planned = await w.plan_one()
        assert planned.outcome == "ok"
        assert {action.outcome for action in planned.actions} == {"planned"}
        assert not state.wrote
        assert await state.runs("rule", "left") == []
        assert w.left.store.repositories == {}
        assert {one.method for one in w.left.operations} <= {"tags", "has_blob", "resolve"}
        assert schema_free.digest in {action.digest for action in planned.actions}


async def test_plan_tells_what_sync_does() -> None:
    async with world() as w:
        shared = layer("shared", 200_000)
        w.put("a", "v1", image("one", [shared, layer("own", 100_000)]))
        w.put("b", "v1", image("two", [shared]))
        planned, done = await w.plan_one(), await w.sync_one()
        assert planned.totals.tags.copied == done.totals.tags.copied == 2
        assert planned.totals.blobs == done.totals.blobs
        assert sum(a.bytes for a in planned.actions) == done.totals.bytes.written


async def test_broken_state_ends_the_run_as_a_state_error() -> None:
    class Broken(MemoryState):
        broken = False

        async def whereabouts(self, site: str, digests: object) -> dict[Digest, list[str]]:
            raise StateError("state: disk is gone")

    async with world() as w:
        w.put("app", "v1", big("large"))
        w.state = Broken(w.clock)
        with pytest.raises(StateError, match="disk is gone"):
            await w.sync_one()
        assert w.tags() == {}


async def test_broken_state_is_not_hidden_by_another_failure_of_the_same_image() -> None:
    async with world() as w:
        built = w.put("app", "v1", big("large", layers=2))
        first, second = (blob.digest for blob in built.manifest.blobs[1:])

        class Broken(MemoryState):
            async def whereabouts(
                self, site: str, digests: Iterable[Digest]
            ) -> Mapping[Digest, Sequence[str]]:
                if first in digests:
                    raise StateError("state: disk is gone")
                return {}

        w.state = Broken(w.clock)
        w.source.fail("open_blob", Denied("source", "read blob", "no", repository="app"), subject=second)
        with pytest.raises(StateError, match="disk is gone"):
            await w.sync_one()


async def test_entries_of_a_run_are_recorded_as_tags_complete() -> None:
    recorded: list[Entry] = []

    class Watched(MemoryState):
        def record(self, entry: Entry) -> None:
            recorded.append(entry)
            super().record(entry)

    async with world() as w:
        built = w.put("app", "v1", big("large"))
        w.state = Watched(w.clock)
        await w.sync_one()
        kinds = [type(entry) for entry in recorded]
        assert kinds[0] is Missing  # pending from the moment it was seen: a kill loses nothing
        assert kinds.index(Placed) > kinds.index(Seen)
        seen = [entry.digest for entry in recorded if isinstance(entry, Seen)]
        assert seen == [
            built.manifest.blobs[1].digest
        ]  # not the config: a small blob is sent, not looked for
