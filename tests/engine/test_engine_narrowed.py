"""What an event named: only that is looked at, and each look says what it saw of it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from replicator.demo.images import image
from replicator.engine.context import RunScope
from replicator.events import RunEnded, RunStarted, TagSeen
from replicator.model.companion import is_companion
from replicator.policy.pattern import parse_tag_pattern
from replicator.policy.rule import Pin, TagSelection
from replicator.ports import Unit
from tests.engine.world import World, rule, world

V1 = RunScope({"app": frozenset({"v1"})})


def seen(w: World) -> list[tuple[str, str, str, str, str | None]]:
    found = [
        (each.rule, each.source, each.repository, each.tag, each.digest)
        for each in w.seen
        if isinstance(each, TagSeen)
    ]
    w.seen.clear()
    return found


async def test_narrowed_look_says_what_the_tag_is_changed_or_not() -> None:
    async with world() as w:
        built = w.put("app", "v1")
        w.put("app", "v2")
        for _ in range(2):
            await w.sync_one(scope=V1)
            assert seen(w) == [("rule", "source", "app", "v1", built.digest)]
        moved = w.put("app", "v1", image("moved"))
        await w.sync_one(scope=V1)
        assert seen(w) == [("rule", "source", "app", "v1", moved.digest)]


async def test_complete_look_says_nothing_of_single_tags() -> None:
    async with world() as w:
        w.put("app", "v1")
        await w.sync_one()
        assert seen(w) == []


async def test_run_tells_what_it_was_narrowed_to_and_how_much_it_copied() -> None:
    async with world() as w:
        w.put("app", "v1")
        w.put("other", "v1")
        for scope, named, copied in ((V1, ("app",), 1), (V1, ("app",), 0), (None, None, 1)):
            await w.sync_one(scope=scope)
            [started] = [each for each in w.seen if isinstance(each, RunStarted)]
            [ended] = [each for each in w.seen if isinstance(each, RunEnded)]
            assert started.repositories == ended.repositories == named
            assert ended.copied == copied
            w.seen.clear()


async def test_tag_that_is_not_there_yet_is_not_seen_and_no_reason_to_warn() -> None:
    async with world() as w:
        w.put("app", "v0")
        result = await w.sync_one(scope=V1)
        assert [each.is_absent for each in w.seen if isinstance(each, TagSeen)] == [True]
        assert result.warnings == []
        assert result.outcome == "ok"


async def test_look_at_a_whole_repository_says_what_each_of_its_tags_is() -> None:
    async with world() as w:
        one, two = w.put("app", "v1"), w.put("app", "v2")
        w.put("web", "v1")
        await w.sync_one(scope=RunScope({"app": None}))
        assert {each[2:] for each in seen(w)} == {("app", "v1", one.digest), ("app", "v2", two.digest)}


@pytest.mark.parametrize("latest", [None, 1])
async def test_tag_that_the_rule_leaves_out_needs_no_second_look(latest: int | None) -> None:
    only_others = TagSelection(include=(parse_tag_pattern("v2*"),), latest=latest)
    async with world() as w:
        w.put("app", "v1")
        w.put("app", "v2")
        await w.sync_one(rule(selection=only_others), scope=V1)
        assert ("rule", "source", "app", "v1", None) in seen(w)


async def test_pinned_tag_needs_no_second_look() -> None:
    async with world() as w:
        built = w.put("app", "v1")
        pinned = TagSelection(pins=(Pin(built.digest, "v1"),), include=(parse_tag_pattern("v*"),))
        await w.sync_one(rule(selection=pinned), scope=V1)
        assert seen(w) == [("rule", "source", "app", "v1", None)]


async def test_immutable_tag_that_every_destination_has_needs_no_second_look() -> None:
    immutable = rule(selection=TagSelection(immutable=(parse_tag_pattern("v*"),)))
    async with world() as w:
        w.put("app", "v1")
        await w.sync_one(immutable)
        w.clear_log()
        await w.sync_one(immutable, scope=V1)
        assert seen(w) == [("rule", "source", "app", "v1", None)]
        assert w.source.count("resolve") == 0


async def test_of_exact_tags_only_the_named_one_is_asked_for() -> None:
    exact = rule(tags=["v1", "v2"], repositories=["app"])
    async with world() as w:
        w.put("app", "v1")
        w.put("app", "v2")
        w.clear_log()
        await w.sync_one(exact, scope=V1)
        resolved = [one.subject for one in w.source.operations if one.method == "resolve"]
        assert [tag for tag in resolved if not is_companion(tag)] == ["v1"]
        assert set(w.tags()["app"]) == {"v1"}


async def test_exact_tag_that_is_not_there_yet_is_no_failure_of_a_narrowed_look() -> None:
    exact = rule(tags=["v1", "v2"], repositories=["app"])
    async with world() as w:
        w.put("app", "v2")
        assert (await w.sync_one(exact, scope=V1)).outcome == "ok"
        assert (await w.sync_one(exact)).outcome == "partial"


async def test_event_reads_where_its_own_repository_stands_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with world() as w:
        w.put("app", "v1")
        w.put("web", "v1")
        await w.sync_one()
        read: list[Unit] = []
        units = w.state.units

        async def counted(*asked: object) -> Sequence[Unit]:
            found = await units(*asked)  # type: ignore[arg-type]
            read.extend(found)
            return found

        monkeypatch.setattr(w.state, "units", counted)
        w.put("app", "v2")
        await w.engine().sync([rule()], unattended=True, scope=RunScope({"app": frozenset({"v2"})}))
        assert [unit.repository for unit in read] == ["app"]
        assert set(w.tags()["app"]) == {"v1", "v2"}
