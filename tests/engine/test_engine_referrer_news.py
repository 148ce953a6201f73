"""New referrers of images that have not changed: by events, by the listing, and where nothing is remembered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from msgspec.structs import replace

from replicator.demo.images import BuiltImage, image, index, load
from replicator.engine.context import RunScope
from replicator.engine.result import DestinationResult
from replicator.errors import Unavailable
from replicator.events import TagSeen
from replicator.model.companion import fallback_tag, legacy_tags
from replicator.policy.referrers import ReferrerFilter, parse_referrer_pattern
from replicator.ports import Listed
from tests.engine.world import World, rule, world
from tests.fakes.clock import FakeClock, StillClock
from tests.fakes.memory import MemoryRepository
from tests.fakes.referrers import bundle, fallback_index, referrer

LATE = 24 * 3600.0 + 1


def named(*names: str) -> RunScope:
    return RunScope({"app": frozenset(names)})


def arrived(w: World, *expected: BuiltImage) -> bool:
    return all(each.digest in w.left.store.repositories["app"].manifests for each in expected)


@asynccontextmanager
async def old_world() -> AsyncIterator[World]:
    """A source without the API and its destination, in step: `v1` and its alias `one`, and 20 others."""
    async with world(clock=FakeClock()) as w:
        w.source.referrers_api = False
        root = w.put("app", "v1")
        w.put("app", "one", root)
        for number in range(20):
            w.put("app", f"other{number}")
        await w.sync_one()
        w.clear_log()
        yield w


def sign(w: World, root: BuiltImage, *more: BuiltImage) -> BuiltImage:
    signed = bundle(root)
    for each in (signed, *more):
        load(w.source.store, "app", None, each)
    load(w.source.store, "app", fallback_tag(root.digest), fallback_index(signed, *more))
    return signed


def seen(w: World) -> dict[str, str | None]:
    return {event.tag: event.digest for event in w.seen if isinstance(event, TagSeen)}


async def test_an_event_for_a_fallback_tag_brings_the_signature_at_once() -> None:
    async with old_world() as old:
        root = image("app:v1")
        signed, tag = sign(old, root), fallback_tag(root.digest)
        done = await old.sync_one(scope=named(tag))
        assert {action.tag for action in done.actions if action.outcome == "copied"} == {"v1", "one"}
        assert arrived(old, signed)
        assert seen(old)[tag] == old.source.store.repositories["app"].tags[tag], "the event is answered"
        asked = {one.subject for one in old.source.operations if one.method == "resolve"}
        assert asked == {tag, "v1", "one"}, "the other tags are not asked for"


async def test_an_event_for_a_tag_that_is_not_there_yet_is_not_answered_as_seen() -> None:
    async with old_world() as old:
        tag = fallback_tag(image("app:v1").digest)
        await old.sync_one(scope=named(tag))
        [event] = [event for event in old.seen if isinstance(event, TagSeen) and event.tag == tag]
        assert event.is_absent


async def test_an_event_for_a_legacy_tag_brings_it() -> None:
    async with old_world() as old:
        root = image("app:v1")
        tag = legacy_tags(root.digest)[0]
        load(old.source.store, "app", tag, image("signature"))
        await old.sync_one(scope=named(tag))
        assert old.tags()["app"][tag] == image("signature").digest


@pytest.mark.parametrize("levels", [1, 2])
async def test_an_event_for_a_referrers_digest_finds_the_image_below(levels: int) -> None:
    async with world(clock=FakeClock()) as w:
        root = w.put("app", "v1")
        await w.sync_one()
        w.clear_log()
        last = root
        for number in range(levels):
            last = referrer(last, seed=f"{number}")
            load(w.source.store, "app", None, last)
        assert (await w.sync_one(scope=named(last.digest))).totals.tags.copied == 1
        assert arrived(w, last)
        assert seen(w)[last.digest] == last.digest


async def test_an_event_for_a_child_that_refers_to_nothing_costs_one_request() -> None:
    async with old_world() as old:
        child = image("child")
        load(old.source.store, "app", None, child)
        await old.sync_one(scope=named(child.digest))
        assert [one.method for one in old.source.operations] == ["read_manifest"]
        assert seen(old)[child.digest] == child.digest


async def test_the_event_of_its_signature_frees_an_image_that_was_held() -> None:
    async with world(clock=FakeClock()) as w:
        required = ReferrerFilter(require=(parse_referrer_pattern("signature"),))
        one = replace(rule(), referrer_filter=required)
        root = w.put("app", "v1")
        assert (await w.sync_one(one)).totals.tags.held == 1
        signed = bundle(root)
        load(w.source.store, "app", None, signed)
        assert (await w.sync_one(one, scope=named(signed.digest))).totals.tags.copied == 1
        assert w.tags() == {"app": {"v1": root.digest}}


async def test_without_referrers_such_an_event_is_nothing() -> None:
    async with old_world() as old:
        root = image("app:v1")
        signed = sign(old, root)
        await old.sync_one(replace(rule(), referrers="none"), scope=named(fallback_tag(root.digest)))
        assert not arrived(old, signed)


async def test_the_listing_shows_new_fallback_tags_and_nobody_waits_for_the_day() -> None:
    async with old_world() as old:
        signed = sign(old, image("app:v1"))
        done = await old.sync_one()
        assert {action.tag for action in done.actions if action.outcome == "copied"} == {"v1", "one"}
        assert arrived(old, signed)
        old.clear_log()
        assert (await old.sync_one()).totals.tags.copied == 0
        assert old.source.count("read_manifest") == 0, "what has not changed is not read again"


class ListsDigests(MemoryRepository):
    """A repository whose listing tells what the tags name."""

    listing_notice = ""

    async def listed(self, _: object) -> AsyncIterator[Sequence[Listed]]:
        async for page in self.tags():
            yield [Listed(tag, (await self.resolve(tag)).digest) for tag in page]


async def test_a_listing_with_digests_shows_that_a_fallback_tag_has_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with world(clock=StillClock()) as w:
        monkeypatch.setattr(w.source, "repository", lambda name: ListsDigests(w.source, name))
        w.source.referrers_api = False
        root = w.put("app", "v1")
        sign(w, root)
        await w.sync_one()
        w.clear_log()
        assert (await w.sync_one()).totals.tags.unchanged == 1
        assert w.source.count("read_manifest") == 0
        more = referrer(root)
        sign(w, root, more)
        assert (await w.sync_one()).totals.tags.copied == 1
        assert arrived(w, more)


@pytest.mark.parametrize("api", [True, False])
async def test_where_nothing_is_remembered_later_signatures_are_found(*, api: bool) -> None:
    """Runs in CI: a new state each time."""
    async with world(clock=FakeClock()) as w:
        w.source.referrers_api = api
        root = w.put("app", "v1")
        await w.sync_one()
        signed = sign(w, root)
        w.forget()
        assert (await w.sync_one()).totals.tags.copied == 1
        assert arrived(w, signed)
        w.forget()
        w.clear_log()
        assert (await w.sync_one()).totals.tags.unchanged == 1
        assert w.source.count("referrers") == 1


async def test_where_nothing_is_remembered_a_source_without_the_api_is_asked_only_what_its_tags_show() -> (
    None
):
    async with world(clock=FakeClock()) as w:
        w.source.referrers_api = False
        for number in range(10):
            w.put("app", f"v{number}", index([image(f"{number}")]))
        await w.sync_one()
        w.forget()
        w.clear_log()
        await w.sync_one()
        assert w.source.count("read_manifest") == 0
        assert w.left.count("referrers") == 0


# --- referrers of platforms ---


@asynccontextmanager
async def platforms_world(*, api: bool = True) -> AsyncIterator[tuple[World, BuiltImage]]:
    """Ten indexes of two platforms, in step; and a platform of the fourth."""
    async with world(clock=FakeClock()) as w:
        w.source.referrers_api = api
        for number in range(10):
            w.put("app", f"v{number}", index([image(f"amd{number}"), image(f"arm{number}")]))
        await w.sync_one()
        w.clear_log()
        yield w, image("arm4")


def copied(done: DestinationResult) -> set[str | None]:
    return {action.tag for action in done.actions if action.outcome == "copied"}


@pytest.mark.parametrize("levels", [1, 2])
async def test_an_event_for_a_referrer_of_a_platform_finds_its_image(levels: int) -> None:
    async with platforms_world() as (w, child):
        last = child
        for number in range(levels):
            last = referrer(last, seed=f"{number}")
            load(w.source.store, "app", None, last)
        engine = w.engine()
        [done] = await engine.sync([rule()], scope=named(last.digest))
        assert copied(done.destinations[0]) == {"v4"}
        assert arrived(w, last)
        w.clear_log()
        load(w.source.store, "app", None, more := bundle(child))
        [done] = await engine.sync([rule()], scope=named(more.digest))
        assert copied(done.destinations[0]) == {"v4"}
        assert arrived(w, more)
        assert w.left.count("read_manifest") <= 2, "whose platform it is, is not asked again"


async def test_an_event_for_a_platforms_fallback_tag_or_older_tag_finds_its_image() -> None:
    async with platforms_world(api=False) as (w, child):
        signed = sign(w, child)
        assert copied(await w.sync_one(scope=named(fallback_tag(child.digest)))) == {"v4"}
        assert arrived(w, signed)
        older = legacy_tags(child.digest)[0]
        load(w.source.store, "app", older, image("signature"))
        assert copied(await w.sync_one(scope=named(older))) == {"v4"}
        assert w.tags()["app"][older] == image("signature").digest


async def test_an_event_for_the_fallback_tag_of_a_referrer_finds_the_image_below() -> None:
    async with platforms_world(api=False) as (w, child):
        sbom = referrer(child)
        sign(w, child, sbom)
        await w.sync_one(recheck=True)
        signed = sign(w, sbom)
        assert copied(await w.sync_one(scope=named(fallback_tag(sbom.digest)))) == {"v4"}
        assert arrived(w, signed)


@pytest.mark.parametrize("api", [True, False])
async def test_the_days_look_finds_the_signature_of_an_sbom(*, api: bool) -> None:
    async with platforms_world(api=api) as (w, child):
        sbom = referrer(child)
        sign(w, child, sbom)
        await w.sync_one(recheck=True)
        signed = sign(w, sbom)
        w.clock.advance(LATE)  # type: ignore[attr-defined]
        assert copied(await w.sync_one()) == {"v4"}
        assert arrived(w, signed)
        w.clock.advance(LATE)  # type: ignore[attr-defined]
        w.clear_log()
        assert copied(await w.sync_one()) == set()
        asked = {one.subject for one in w.source.operations if one.method == "referrers"}
        assert (sbom.digest in asked) is api
        assert bundle(child).digest not in asked, "hardly anything refers to a signature"


async def test_an_event_for_a_referrer_of_nothing_that_is_copied_asks_for_each_image_once() -> None:
    async with platforms_world() as (w, _):
        stranger = image("not copied")
        load(w.source.store, "app", None, stranger)
        engine = w.engine()
        for number in range(2):
            load(w.source.store, "app", None, one := referrer(stranger, seed=f"{number}"))
            [done] = await engine.sync([rule()], scope=named(one.digest))
            assert done.destinations[0].totals.tags.copied == 0
            assert w.left.count("read_manifest") == 10, number
        w.clear_log()
        load(w.source.store, "app", None, one := referrer(stranger, seed="root only"))
        only_root = replace(rule(), referrers="root")
        await w.sync_one(only_root, scope=named(one.digest))
        assert w.left.count("read_manifest") == 0


async def test_where_the_destination_does_not_answer_a_platforms_referrer_waits_for_the_day() -> None:
    async with platforms_world() as (w, child):
        load(w.source.store, "app", None, signed := bundle(child))
        w.left.fail("read_manifest", Unavailable("left", "read manifest", "down"), times=10)
        await w.sync_one(scope=named(signed.digest))
        assert not arrived(w, signed)
        w.clock.advance(LATE)  # type: ignore[attr-defined]
        await w.sync_one()
        assert arrived(w, signed)


async def test_an_agent_sees_in_the_listing_that_a_platform_has_new_referrers() -> None:
    async with platforms_world(api=False) as (w, child):
        engine = w.engine()
        await engine.sync([rule()])
        w.clear_log()
        signed = sign(w, child)
        [done] = await engine.sync([rule()])
        assert copied(done.destinations[0]) == {"v4"}
        assert arrived(w, signed)
        w.clear_log()
        [done] = await engine.sync([rule()])
        assert done.destinations[0].totals.tags.unchanged == 10
        assert w.source.count("read_manifest") == w.left.count("read_manifest") == 0


async def test_a_plan_does_not_use_up_what_a_listing_shows() -> None:
    async with platforms_world(api=False) as (w, child):
        engine = w.engine()
        await engine.sync([rule()])
        signed = sign(w, child)
        [planned] = await engine.plan([rule()])
        assert {action.tag for action in planned.destinations[0].actions} == {"v4"}
        await engine.sync([rule()])
        assert arrived(w, signed)
