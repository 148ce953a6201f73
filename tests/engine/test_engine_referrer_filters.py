"""Which referrers travel, and images that are held because they lack some."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from replicator.demo.images import image, index, load
from replicator.events import TagUntrusted
from replicator.model.companion import fallback_tag, legacy_tags
from replicator.policy.referrers import ReferrerFilter, parse_referrer_pattern
from replicator.policy.rule import Rule
from tests.engine.test_why import only_one
from tests.engine.world import World, only, rule, world
from tests.fakes.clock import StillClock
from tests.fakes.referrers import NOTATION, PROVENANCE, SPDX, bundle, fallback_index, referrer


def filtered(
    *, include: tuple[str, ...] = (), exclude: tuple[str, ...] = (), require: tuple[str, ...] = ()
) -> Rule:
    patterns = [tuple(map(parse_referrer_pattern, each)) for each in (include, exclude, require)]
    return replace(rule(), referrer_filter=ReferrerFilter(*patterns))


def attached(w: World, *subjects: object) -> set[str]:
    store = w.left.store
    return {one.digest for each in subjects for one in store.referrers("app", each.digest)}  # type: ignore[attr-defined]


@pytest.mark.parametrize("api", [True, False])
async def test_what_the_filter_leaves_out_stays_and_what_refers_to_it(*, api: bool) -> None:
    async with world() as w:
        w.source.referrers_api = api
        root = w.put("app", "v1")
        signed, sbom, provenance = bundle(root), referrer(root), bundle(root, PROVENANCE)
        signed_sbom, stamp = bundle(sbom), referrer(signed, "application/vnd.timestamp")
        for each in (signed, sbom, provenance, signed_sbom, stamp):
            load(w.source.store, "app", None, each)
        load(w.source.store, "app", fallback_tag(root.digest), fallback_index(sbom, provenance, signed))
        load(w.source.store, "app", fallback_tag(sbom.digest), fallback_index(signed_sbom))
        load(w.source.store, "app", fallback_tag(signed.digest), fallback_index(stamp))
        await w.sync_one(filtered(include=("signature", "application/vnd.time*")))
        assert attached(w, root, sbom, signed) == {signed.digest, stamp.digest}


async def test_exclude_wins_and_annotations_count() -> None:
    async with world() as w:
        root = w.put("app", "v1")
        inner = referrer(root, annotations={"scope": "internal/1"})
        outer = referrer(root, annotations={"scope": "public"})
        for each in (inner, outer):
            load(w.source.store, "app", None, each)
        await w.sync_one(filtered(include=(SPDX,), exclude=("annotation:scope=internal*",)))
        assert attached(w, root) == {outer.digest}


async def test_the_filter_holds_for_later_referrers_and_costs_no_reading_where_the_listing_tells() -> None:
    clock = StillClock()
    async with world(clock=clock) as w:
        root = w.put("app", "v1")
        load(w.source.store, "app", None, referrer(root, annotations={"a": "b"}))
        one = filtered(include=("signature",))
        await w.sync_one(one)
        clock.advance(24 * 3600.0 + 1)
        w.source.operations.clear()
        assert (await w.sync_one(one)).totals.tags.unchanged == 1
        assert w.source.count("read_manifest") == 0
        late = bundle(root)
        load(w.source.store, "app", None, late)
        clock.advance(24 * 3600.0 + 1)
        await w.sync_one(one)
        assert attached(w, root) == {late.digest}


async def test_cosigns_older_tags_are_filtered_by_their_kind() -> None:
    async with world() as w:
        root = w.put("app", "v1")
        sig, att, sbom = legacy_tags(root.digest)
        for tag in (sig, att, sbom):
            load(w.source.store, "app", tag, image(tag))
        await w.sync_one(filtered(exclude=("attestation", "sbom")))
        assert w.tags()["app"].keys() == {"v1", sig}


async def test_an_image_that_lacks_what_is_required_is_held_until_it_has_it() -> None:
    async with world() as w:
        root, good = w.put("app", "v1"), w.put("app", "v2")
        for each in (bundle(good), referrer(good), bundle(root, PROVENANCE)):
            load(w.source.store, "app", None, each)
        one = filtered(require=("signature", SPDX))
        done = await w.sync_one(one)
        assert (done.totals.tags.copied, done.totals.tags.held) == (1, 1)
        [held] = only(done, "held")
        assert held.reason == f"not trusted: required, but the source has none: signature, {SPDX}"
        assert held.hold == "referrers"
        assert w.tags() == {"app": {"v2": good.digest}}
        [told] = [event for event in w.seen if isinstance(event, TagUntrusted)]  # for log, metrics and page
        assert (told.tag, told.reason) == ("v1", f"required, but the source has none: signature, {SPDX}")
        load(w.source.store, "app", None, bundle(root))
        load(w.source.store, "app", None, referrer(root))
        assert (await w.sync_one(one)).totals.tags.copied == 1


async def test_a_plan_holds_it_too_and_names_the_filter_where_that_is_the_reason() -> None:
    async with world() as w:
        root = w.put("app", "v1")
        load(w.source.store, "app", None, bundle(root))
        [held] = only(await w.plan_one(filtered(exclude=("signature",), require=("signature",))), "held")
        assert held.reason == "not trusted: required, but left out by the rule's own filter: signature"
        assert held.hold == "filtered"


async def test_what_is_required_must_refer_to_the_tag_itself() -> None:
    async with world() as w:
        child = image("child")
        w.put("app", "v1", index([child]))
        load(w.source.store, "app", None, bundle(child))
        assert (await w.sync_one(filtered(require=("signature",)))).totals.tags.held == 1


async def test_a_plan_says_what_would_arrive_unsigned() -> None:
    async with world() as w:
        root = w.put("app", "v1")
        load(w.source.store, "app", None, bundle(root))
        w.put("app", "v2")
        said = {}
        for name, one in {
            "filtered": filtered(exclude=("signature",)),
            "none": replace(rule(), referrers="none"),
            "all": rule(),
            "other": filtered(exclude=("sbom",)),
        }.items():
            planned = only(await w.plan_one(one), "planned")
            said[name] = {each.tag for each in planned if "would arrive unsigned" in (each.reason or "")}
        assert said == {"filtered": {"v1"}, "none": {"v1"}, "all": set(), "other": set()}
        [done] = [
            each
            for each in only(await w.sync_one(filtered(exclude=("signature",))), "copied")
            if each.tag == "v1"
        ]
        assert "arrived unsigned" in (done.reason or "")


async def test_a_plan_sees_that_the_destination_cannot_take_the_list_of_referrers() -> None:
    async with world() as w:
        w.left.referrers_api = False
        root = w.put("app", "v1")
        load(w.source.store, "app", None, bundle(root))
        load(w.left.store, "app", fallback_tag(root.digest), image("a user's own"))
        [held] = only(await w.plan_one(), "held")
        assert "is not a list of referrers and is not overwritten" in (held.reason or "")
        assert held.hold == "content"


async def test_a_moved_tag_to_an_unsigned_image_leaves_the_signed_one_in_place() -> None:
    async with world() as w:
        first = w.put("app", "v1")
        load(w.source.store, "app", None, referrer(first, NOTATION))
        one = filtered(require=("signature",))
        await w.sync_one(one)
        w.put("app", "v1", image("moved"))
        assert (await w.sync_one(one)).totals.tags.held == 1
        assert w.tags() == {"app": {"v1": first.digest}}


async def test_why_names_what_is_required_and_missing() -> None:
    async with world() as w:
        w.put("app", "v1")
        one = filtered(require=("signature",))
        await w.sync_one(one)
        explained = await only_one(w, [one], "app:v1")
        assert explained.verdict == "held"
        assert any("required, but the source has none: signature" in step.text for step in explained.steps)
