"""What is wanted: pins, immutable tags, ages, targets and who owns them."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from replicator.demo.images import image, index, load
from replicator.engine.plan.compare import Change, compare, compare_seen
from replicator.errors import Unavailable
from replicator.flow.clock import SystemClock
from replicator.model.companion import is_companion
from replicator.model.digest import Digest
from replicator.policy.pattern import parse_tag_pattern
from replicator.policy.rule import Pin, Rename, Replacement, TagSelection
from replicator.ports import TagBelief
from replicator.state.store import open_state
from tests.engine.world import only, rule, until, world
from tests.fakes.clock import FakeClock

DAY = 24 * 3600.0
IMMUTABLE = rule(selection=TagSelection(immutable=(parse_tag_pattern("v*"),)))


async def test_immutable_tag_that_is_there_costs_no_request_at_the_source() -> None:
    async with world() as w:
        w.put("app", "v1")
        w.put("app", "latest")
        await w.sync_one(IMMUTABLE)
        w.clear_log()
        assert (await w.sync_one(IMMUTABLE)).totals.tags.unchanged == 2
        assert [one.subject for one in w.source.operations if one.method == "resolve"] == ["latest"]


async def test_immutable_tag_that_moves_at_the_source_is_left_as_it_was() -> None:
    async with world() as w:
        first = w.put("app", "v1", image("first"))
        await w.sync_one(IMMUTABLE)
        w.put("app", "v1", image("second"))
        await w.sync_one(IMMUTABLE)
        assert w.tags()["app"]["v1"] == first.digest


async def test_immutable_tag_removed_at_the_destination_is_copied_again() -> None:
    async with world() as w:
        w.put("app", "v1")
        await w.sync_one(IMMUTABLE)
        w.left.store.delete_tag("app", "v1")
        assert (await w.sync_one(IMMUTABLE)).totals.tags.copied == 1
        assert set(w.tags()["app"]) == {"v1"}


async def test_immutable_tag_is_asked_for_at_a_destination_that_lacks_it() -> None:
    both = rule(destinations=["left", "right"], selection=IMMUTABLE.tags[0])
    async with world(destinations=["left", "right"]) as w:
        w.put("app", "v1")
        await w.sync_one(IMMUTABLE)
        w.put("app", "v2")
        w.clear_log()
        await w.sync(both)
        assert w.tags("left") == w.tags("right") == w.tags("source")
        assert w.source.count("resolve") == 2


async def test_immutable_tag_changed_at_the_destination_is_put_right_when_it_is_checked() -> None:
    """Immutable is a promise of the source's; the destination is checked like any other."""
    clock = FakeClock()
    async with world(clock=clock) as w:
        built = w.put("app", "v1")
        await w.sync_one(IMMUTABLE)
        for way in ("when due", "when told"):
            load(w.left.store, "app", "v1", image("somebody else's"))
            w.clear_log()
            if way == "when due":
                clock.advance(DAY + 1)
            await w.sync_one(IMMUTABLE, recheck=way == "when told")
            assert w.tags()["app"]["v1"] == built.digest
            assert w.source.count("resolve") == 1  # what we believe may be gone there


async def test_immutable_tags_of_a_wiped_destination_are_resolved_side_by_side() -> None:
    async with world() as w:
        built = image("one for all")
        for number in range(40):
            w.put("app", f"v{number}", built)
        await w.sync_one(IMMUTABLE)
        del w.left.store.repositories["app"]
        w.source.peak.clear()
        assert (await w.sync_one(IMMUTABLE)).totals.tags.copied == 40
        assert w.source.peak["resolve"] > 8


async def test_pin_with_a_tag_is_that_digest_whatever_the_tag_is_at_the_source() -> None:
    async with world() as w:
        pinned = w.put("app", "v1", image("pinned"))
        w.put("app", "v1", image("moved on"))
        table = TagSelection(pins=(Pin(pinned.digest, "stable"),))
        assert (await w.sync_one(rule(selection=table))).outcome == "ok"
        assert w.tags() == {"app": {"stable": pinned.digest}}
        resolved = [one.subject for one in w.source.operations if one.method == "resolve"]
        assert [tag for tag in resolved if not is_companion(tag)] == []
        assert w.source.count("tags") == 0


async def test_pin_without_a_tag_is_there_by_digest_alone() -> None:
    async with world() as w:
        pinned = w.put("app", "v1", index([image("x")]))
        one = rule(selection=TagSelection(pins=(Pin(pinned.digest),)))
        assert (await w.sync_one(one)).outcome == "ok"
        assert w.tags() == {}
        assert pinned.digest in w.left.store.repositories["app"].manifests
        assert w.left.store.missing("app", pinned.manifest) == []
        w.clear_log()
        again = await w.sync_one(one)
        assert (again.totals.tags.unchanged, again.totals.bytes.written) == (1, 0)


async def test_pin_that_is_gone_is_a_failure() -> None:
    async with world() as w:
        w.put("app", "v1")
        gone = Digest(f"sha256:{'0' * 64}")
        result = await w.sync_one(rule(selection=TagSelection(pins=(Pin(gone, "stable"),))))
        assert (result.outcome, result.failures[0].reason) == ("failed", "not_found")


async def test_two_pins_for_one_tag_are_a_failure_of_the_second() -> None:
    async with world() as w:
        one, two = w.put("app", "v1"), w.put("app", "v2")
        table = TagSelection(pins=(Pin(one.digest, "stable"), Pin(two.digest, "stable")))
        result = await w.sync_one(rule(selection=table))
        assert result.outcome == "partial"
        assert w.tags()["app"] == {"stable": one.digest}


async def test_image_older_than_newer_than_is_left_out_and_its_age_read_once_ever() -> None:
    clock = FakeClock(now=1_704_067_200.0 + 100 * DAY)  # 100 days after 2024 began
    one = rule(selection=TagSelection(newer_than=30 * DAY))
    async with world(clock=clock) as w:
        w.put("app", "old", image("old", created="2024-01-01T00:00:00Z"))
        young = w.put("app", "young", index([image("young", created="2024-04-01T00:00:00Z")]))
        await w.sync_one(one)
        assert w.tags() == {"app": {"young": young.digest}}
        assert w.source.count("resolve") == 2  # for its age and its copy alike
        w.clear_log()
        await w.sync_one(one)
        assert w.source.count("open_blob") == w.source.count("read_manifest") == 0


async def test_plan_reads_ages_without_keeping_them(tmp_path: Path) -> None:
    """`plan` opens the state for reading only, where any record is an error."""
    async with world() as w:
        w.put("app", "v1")
        w.state = state = await open_state(tmp_path / "state.db", clock=SystemClock(), read_only=True)
        planned = await w.plan_one(rule(selection=TagSelection(newer_than=100 * 365 * DAY)))
        await state.aclose()
        assert (planned.outcome, planned.totals.tags.copied) == ("ok", 1)


async def test_tag_of_unknown_age_is_left_out_and_said() -> None:
    clock = FakeClock(now=1_704_067_200.0 + DAY)
    async with world(clock=clock) as w:
        built = w.put("app", "v1")
        w.source.fail("open_blob", Unavailable("source", "read blob", "reset"), times=99)
        result = await w.sync_one(rule(selection=TagSelection(newer_than=30 * DAY)))
        assert w.tags() == {}
        assert any("left out because their age is unknown: " in text for text in result.warnings)
        assert any(built.manifest.blobs[0].digest in text or "reset" in text for text in result.warnings)


async def test_two_sources_for_one_target_are_a_failure_that_names_both() -> None:
    merge = Rename(replacements=(Replacement(re.compile(".+"), "all"),))
    async with world() as w:
        w.put("a", "v1", image("one"))
        w.put("b", "v1", image("two"))
        result = await w.sync_one(rule(rename=merge))
        assert result.outcome == "partial"
        [failed] = only(result, "failed")
        assert "source: a" in (failed.reason or "")
        assert "source: b" in (failed.reason or "")
        assert len(w.tags()["all"]) == 1


async def test_two_sources_with_the_same_image_for_one_target_are_no_failure() -> None:
    merge = Rename(replacements=(Replacement(re.compile(".+"), "all"),))
    async with world() as w:
        built = image("same")
        w.put("a", "v1", built)
        w.put("b", "v1", built)
        assert (await w.sync_one(rule(rename=merge))).outcome == "ok"


async def test_target_of_another_rule_is_a_failure_that_names_both_and_stays_as_it_is() -> None:
    async with world(mirrors=["second"]) as w:
        ours = w.put("app", "v1", image("ours"))
        load(w.sites["second"].store, "app", "v1", image("theirs"))
        one, two = rule("one"), rule("two", source="second")
        await w.engine([one, two]).sync([one])
        result = (await w.engine([one, two]).sync([two]))[0].destinations[0]
        assert result.outcome == "failed"
        assert "rule one" in result.failures[0].cause
        assert "rule two" in result.failures[0].cause
        assert w.tags()["app"]["v1"] == ours.digest


@pytest.mark.parametrize("together", [True, False])
async def test_source_tag_that_moves_is_the_same_wish_of_all_rules_that_follow_it(*, together: bool) -> None:
    """Which of them put it there last time says nothing: what the tag is now is what both want."""
    one, two = rule("one"), rule("two", repositories=["a*"], tags=["v*"])
    async with world() as w:
        for number in range(3):
            built = w.put("app", "v1", image(f"{number}"))
            engine = w.engine([one, two])
            runs = [[one, two]] if together else [[two], [one]] if number % 2 else [[one], [two]]
            results = [result for rules in runs for result in await engine.sync(rules)]
            assert [(r.rule, r.destinations[0].failures) for r in results] == [
                (each.name, []) for rules in runs for each in rules
            ]
            assert w.tags() == {"app": {"v1": built.digest}}


_LET_GO = ("selects other tags", "selects other repositories", "writes elsewhere", "is gone")


@pytest.mark.parametrize("how", ["pins it", "has another source", "renames another", *_LET_GO])
async def test_what_another_rule_put_there_is_its_own_until_it_lets_go(how: str) -> None:
    """Rules are split, and repositories move from one to another: what a rule no longer takes there is free."""
    async with world(mirrors=["second"]) as w:
        first, newer = image("first"), image("newer")
        w.put("app", "v1", first)
        load(w.sites["second"].store, "app", "v1", first)
        pinned = TagSelection(pins=(Pin(first.digest, "v1"),))
        other = {
            "pins it": rule("other", selection=pinned),
            "has another source": rule("other", source="second"),
            "renames another": rule("other", repositories=["app"], rename_tag=Rename(prefix="x")),
            "selects other tags": rule("other", tags=["v2"]),
            "selects other repositories": rule("other", repositories=["b*"]),
            "writes elsewhere": rule("other", destinations=["right"]),
            "is gone": rule("other"),
        }[how]
        await w.engine().sync([rule("other", selection=pinned if how == "pins it" else None)])
        w.put("app", "v1", newer)
        one = rule("one")
        result = (await w.engine([one] if how == "is gone" else [one, other]).sync([one]))[0].destinations[0]
        if how in _LET_GO:
            assert result.failures == []
        else:
            assert "rule other has another digest" in result.failures[0].cause
        assert w.tags()["app"]["v1"] == (newer if how in _LET_GO else first).digest


async def test_tag_that_moves_between_two_rules_looks_is_no_conflict() -> None:
    async with world() as w:
        first = w.put("app", "v1", image("first"))
        one, two = rule("one", repositories=["app"]), rule("two", repositories=["a*"])
        listing = w.source.pause("repositories")  # only the second rule has to list them
        run = asyncio.create_task(w.sync(one, two))
        await listing.reached.wait()
        await until(lambda: w.tags() == {"app": {"v1": first.digest}})
        second = w.put("app", "v1", image("second"))
        listing.release()
        assert [each.destinations[0].failures for each in await run] == [[], []]
        assert w.tags() == {"app": {"v1": second.digest}}


async def test_target_of_a_rule_that_is_no_more_is_free() -> None:
    async with world(mirrors=["second"]) as w:
        w.put("app", "v1", image("ours"))
        theirs = image("theirs")
        load(w.sites["second"].store, "app", "v1", theirs)
        await w.engine([rule("one")]).sync([rule("one")])
        result = (await w.engine().sync([rule("two", source="second")]))[0].destinations[0]
        assert result.outcome == "ok"
        assert w.tags()["app"]["v1"] == theirs.digest


async def test_tag_with_no_valid_name_at_the_destination_fails_alone() -> None:
    odd = Rename(replacements=(Replacement(re.compile("^odd$"), "!"),))
    async with world() as w:
        w.put("app", "odd")
        w.put("app", "even")
        result = await w.sync_one(rule(rename_tag=odd))
        assert set(w.tags()["app"]) == {"even"}
        assert (result.outcome, result.failures[0].operation) == ("partial", "rename tag")


async def test_a_few_exact_tags_are_asked_for_without_any_listing() -> None:
    async with world() as w:
        w.put("app", "v1")
        w.put("app", "v2")
        one = rule(repositories=["app"], tags=["v1", "v2"])
        for _ in range(2):
            assert (await w.sync_one(one)).outcome == "ok"
        assert w.source.count("tags") == w.left.count("tags") == 0
        assert w.source.count("repositories") == 0


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("due", [True, False])
@pytest.mark.parametrize("believed", ["same", "other", None])
def test_what_is_compared_is_never_called_the_same_without_a_reason(
    believed: str | None, *, due: bool, listed: bool
) -> None:
    digest = Digest("same")
    belief = TagBelief("v1", Digest(believed), Digest(believed), "rule", 0.0) if believed else None
    change = compare(digest, listed=listed, belief=belief, due=due)
    if change is Change.SAME:
        assert listed
        assert not due
        assert believed == "same"
    if not listed:
        assert change is Change.ADDED


def test_what_was_seen_decides() -> None:
    ours, theirs = Digest("ours"), Digest("theirs")
    mine = TagBelief("v1", theirs, theirs, "rule", 0.0)
    assert compare_seen(ours, None, mine) is Change.ADDED
    assert compare_seen(ours, ours, None) is Change.SAME
    assert compare_seen(ours, theirs, None) is Change.DIVERGED
    assert compare_seen(ours, theirs, mine) is Change.MOVED
