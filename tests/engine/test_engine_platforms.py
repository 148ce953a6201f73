"""Rules that choose platforms: sparse indexes, rewritten ones, and what is remembered of them."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from replicator.demo.images import BuiltImage, image, index, load
from replicator.demo.store import Blob
from replicator.engine.result import DestinationResult
from replicator.errors import HoldKind
from replicator.model.descriptor import Platform
from replicator.model.digest import Digest, digest_of
from replicator.policy.platforms import MissingPlatform, PlatformMode, Platforms, parse_platform
from replicator.policy.rule import Rule
from replicator.ports import Capabilities
from tests.engine.world import World, only, rule, world
from tests.fakes.content import artifact, with_attestation, with_foreign_layer

AMD64, ARM64 = Platform("amd64", "linux"), Platform("arm64", "linux")


def _rule(
    *platforms: str, mode: PlatformMode = "sparse", missing: MissingPlatform = "hold", name: str = "rule"
) -> Rule:
    return replace(rule(name), platforms=Platforms(tuple(map(parse_platform, platforms)), mode, missing))


def _both(seed: str = "app") -> BuiltImage:
    return index([image(f"{seed}/amd64", platform=AMD64), image(f"{seed}/arm64", platform=ARM64)])


def _at_left(world_: World, built: BuiltImage) -> list[bool]:
    """Which children of an index are there."""
    there = world_.left.store.repositories["app"].manifests
    return [child.digest in there for child in built.children]


def _was_idle(result: DestinationResult) -> bool:
    return (result.totals.tags.unchanged, result.actions) == (1, [])


def _asked(world_: World) -> list[str]:
    return [f"{name}: {each}" for name, site in world_.sites.items() for each in site.operations]


async def test_a_sparse_index_keeps_its_digest_and_only_the_chosen_children_are_copied() -> None:
    async with world(refuses_dangling=False) as made:
        made.dangling.clear()
        built = made.put("app", "v1", _both())
        result = await made.sync_one(_rule("linux/amd64"))
        assert result.outcome == "ok"
        assert made.tags() == {"app": {"v1": built.digest}}
        assert _at_left(made, built) == [True, False]
        blobs = set(made.left.store.repositories["app"].blobs)
        assert blobs == set(built.children[0].blobs)
        assert _was_idle(await made.sync_one(_rule("linux/amd64")))
        assert (await made.sync_one(_rule("linux/amd64"), recheck=True)).actions == []


async def test_another_choice_copies_what_is_missing_and_a_narrower_one_nothing() -> None:
    async with world(refuses_dangling=False) as made:
        made.dangling.clear()
        built = made.put("app", "v1", _both())
        await made.sync_one(_rule("linux/amd64"))
        wider = await made.sync_one(_rule("linux/amd64", "linux/arm64"))
        assert [each.reason for each in only(wider, "copied")] == ["the rule wants other parts of it now"]
        assert wider.totals.blobs.copied == len(built.children[1].blobs)
        assert _at_left(made, built) == [True, True]
        assert _was_idle(await made.sync_one(_rule("linux/arm64")))
        made.clear_log()
        assert _was_idle(await made.sync_one(_rule("linux/arm64")))
        assert not [each for each in _asked(made) if "manifest" in each]


async def test_a_rule_that_wants_all_again_gets_all() -> None:
    async with world(refuses_dangling=False) as made:
        made.dangling.clear()
        built = made.put("app", "v1", _both())
        await made.sync_one(_rule("linux/amd64"))
        assert len(only(await made.sync_one(rule()), "copied")) == 1
        assert _at_left(made, built) == [True, True]


async def test_what_is_chosen_and_lost_is_copied_again_and_what_is_left_out_is_no_loss() -> None:
    async with world(refuses_dangling=False) as made:
        made.dangling.clear()
        built = made.put("app", "v1", _both())
        await made.sync_one(_rule("linux/arm64"))
        del made.left.store.repositories["app"].manifests[built.children[1].digest]
        result = await made.sync_one(_rule("linux/arm64"), recheck=True)
        assert [each.reason for each in only(result, "copied")] == [
            "parts of it are missing at the destination"
        ]
        assert _at_left(made, built) == [False, True]


async def test_two_rules_of_one_run_with_different_choices_bring_both() -> None:
    async with world(refuses_dangling=False) as made:
        made.dangling.clear()
        built = made.put("app", "v1", _both())
        rules = _rule("linux/amd64"), _rule("linux/arm64", name="other")
        await made.sync(*rules)
        assert _at_left(made, built) == [True, True]


async def test_a_rewritten_index_is_whole_and_neither_copied_again_nor_drift() -> None:
    chosen = _rule("linux/amd64", mode="rewrite")
    async with world() as made:
        built = made.put("app", "v1", _both())
        planned = only(await made.plan_one(chosen), "planned")
        [copied] = only(await made.sync_one(chosen), "copied")
        assert copied.digest != built.digest
        assert [each.digest for each in planned] == [copied.digest]
        assert f"a new index of linux/amd64; the source's is {built.digest}" in (copied.reason or "")
        assert made.tags() == {"app": {"v1": Digest(copied.digest)}}
        assert _at_left(made, built) == [True, False]
        made.clear_log()
        assert _was_idle(await made.sync_one(chosen))
        assert not [each for each in _asked(made) if "manifest" in each]
        assert (await made.plan_one(chosen)).actions == []
        assert _was_idle(await made.sync_one(chosen, recheck=True))
        made.forget()
        assert _was_idle(await made.sync_one(chosen))
        made.clear_log()
        assert _was_idle(await made.sync_one(chosen))
        assert not [each for each in _asked(made) if "manifest" in each]


async def test_a_rewritten_index_follows_its_source_and_the_choice_and_the_mode() -> None:
    chosen = _rule("linux/amd64", mode="rewrite")
    async with world(refuses_dangling=False) as made:
        made.put("app", "v1", _both())
        await made.sync_one(chosen)
        first = made.tags()["app"]["v1"]
        made.put("app", "v1", _both("newer"))
        assert len(only(await made.sync_one(chosen), "copied")) == 1
        second = made.tags()["app"]["v1"]
        assert len(only(await made.sync_one(_rule("linux/arm64", mode="rewrite")), "copied")) == 1
        third = made.tags()["app"]["v1"]
        assert len({first, second, third}) == 3
        made.dangling.clear()
        assert len(only(await made.sync_one(_rule("linux/arm64")), "copied")) == 1
        assert made.tags()["app"]["v1"] == made.tags("source")["app"]["v1"]


async def test_an_index_of_which_nothing_is_left_out_is_not_rewritten() -> None:
    async with world() as made:
        built = made.put("app", "v1", _both())
        await made.sync_one(_rule("linux/amd64", "linux/arm64", mode="rewrite"))
        assert made.tags() == {"app": {"v1": built.digest}}


async def test_what_refers_to_a_rewritten_index_stays_behind_and_that_is_said() -> None:
    chosen = _rule("linux/amd64", mode="rewrite")
    async with world() as made:
        built = made.put("app", "v1", _both())
        of_index = made.put("app", None, artifact("of index", built.manifest))
        of_image = made.put("app", None, artifact("of image", built.children[0].manifest))
        planned = await made.plan_one(chosen)
        assert [text for text in planned.warnings if f"of {built.digest} are not copied" in text]
        result = await made.sync_one(chosen)
        assert result.outcome == "ok"
        there = made.left.store.repositories["app"].manifests
        assert (of_index.digest in there, of_image.digest in there) == (False, True)
        assert [text for text in result.warnings if f"of {built.digest} are not copied" in text]
        assert (await made.sync_one(chosen, recheck=True)).actions == []


@pytest.mark.parametrize("mode", ["sparse", "rewrite"])
async def test_an_attestation_travels_with_its_platform_and_stays_with_one_that_is_not_wanted(
    mode: PlatformMode,
) -> None:
    async with world(refuses_dangling=False) as made:
        made.dangling.clear()
        built = made.put("app", "v1", with_attestation("app", image("app/arm64", platform=ARM64)))
        result = await made.sync_one(_rule("linux/amd64", mode=mode))
        assert result.outcome == "ok", result.failures
        assert _at_left(made, built) == [True, True, False, False]
        root = made.left.store.manifest("app", made.tags()["app"]["v1"])
        assert len(root.children) == (4 if mode == "sparse" else 2)


@pytest.mark.parametrize("mode", ["sparse", "rewrite"])
async def test_an_image_that_lacks_a_platform_is_held_and_read_once(mode: PlatformMode) -> None:
    chosen = _rule("linux/amd64", "linux/s390x", mode=mode)
    async with world() as made:
        made.put("app", "v1", _both())
        made.put("app", "v2", image("single", platform=ARM64))
        engine = made.engine()
        result = (await engine.sync([chosen]))[0].destinations[0]
        assert result.totals.tags.held == 2
        assert {each.tag: each.reason for each in only(result, "held")} == {
            "v1": "the image has no linux/s390x; it has linux/amd64, linux/arm64",
            "v2": "the image has no linux/amd64, linux/s390x; it has linux/arm64",
        }
        assert made.tags() == {}
        made.clear_log()
        await engine.sync([chosen])
        assert not [each for each in made.source.operations if "manifest" in str(each) or "blob" in str(each)]


async def test_a_skipped_image_is_no_failure_and_not_held_but_named() -> None:
    async with world() as made:
        made.put("app", "v1", image("single", platform=ARM64))
        result = await made.sync_one(_rule("linux/amd64", missing="skip"))
        assert (result.outcome, result.totals.tags.held, result.actions) == ("ok", 0, [])
        assert result.warnings == ["skipped: app:v1: the image has no linux/amd64; it has linux/arm64"]
        assert not await made.state.pending("rule", "left", "app")


async def test_with_copy_an_image_is_held_only_if_it_has_none_of_the_platforms() -> None:
    chosen = _rule("linux/amd64", "linux/s390x", missing="copy")
    async with world(refuses_dangling=False) as made:
        made.dangling.clear()
        built = made.put("app", "v1", _both())
        made.put("app", "v2", image("single", platform=ARM64))
        result = await made.sync_one(chosen)
        assert (result.totals.tags.copied, result.totals.tags.held) == (1, 1)
        assert _at_left(made, built) == [True, False]


async def test_an_artifact_has_no_platform_and_is_copied() -> None:
    async with world() as made:
        built = made.put("app", "chart", artifact("chart"))
        await made.sync_one(_rule("linux/s390x", mode="rewrite"))
        assert made.tags() == {"app": {"chart": built.digest}}


async def test_two_rules_that_rewrite_one_tag_differently_are_a_conflict() -> None:
    one, two = _rule("linux/amd64", mode="rewrite"), _rule("linux/arm64", mode="rewrite", name="two")
    async with world() as made:
        made.put("app", "v1", _both())
        first, second = (each.destinations[0] for each in await made.engine([one, two]).sync([one, two]))
        assert first.totals.tags.copied + second.totals.tags.copied == 1
        assert first.totals.tags.failed + second.totals.tags.failed == 1


async def test_a_destination_that_refuses_sparse_indexes_is_told_apart_and_gets_nothing_of_the_next_image() -> (
    None
):
    async with world() as made:
        made.put("app", "v1", _both())
        [foreseen] = only(await made.plan_one(_rule("linux/amd64")), "planned")
        assert "a sparse index: not known whether the destination accepts it" in (foreseen.reason or "")
        result = await made.sync_one(_rule("linux/amd64"))
        assert (result.totals.tags.held, result.totals.tags.failed) == (1, 0)
        [held] = only(result, "held")
        assert "refuses indexes without linux/arm64" in (held.reason or "")
        assert 'platform_mode = "rewrite"' in (held.reason or "")
        assert made.tags() == {}
        [planned] = (await made.engine().plan([_rule("linux/amd64")]))[0].destinations[0].actions
        assert f"held so far: {held.reason}" in (planned.reason or "")


async def test_a_destination_known_to_take_sparse_indexes_or_not_is_foreseen_in_the_plan() -> None:
    async with world() as made:
        made.put("app", "v1", _both())
        made.left.capabilities = Capabilities(sparse=False)
        [held] = only(await made.plan_one(_rule("linux/amd64")), "held")
        assert "refuses indexes without linux/arm64" in (held.reason or "")
        made.clear_log()
        assert len(only(await made.sync_one(_rule("linux/amd64")), "held")) == 1
        assert not [each for each in made.left.operations if each.method.startswith("write")]
        made.left.capabilities = Capabilities(sparse=True)
        made.forget()
        [planned] = only(await made.plan_one(_rule("linux/amd64")), "planned")
        assert "sparse" not in (planned.reason or "")


async def test_foreign_layers_are_copied_only_where_the_rule_says_so() -> None:
    async with world() as made:
        built = made.put("app", "v1", with_foreign_layer("windows"))
        foreign = digest_of(b"windows")
        await made.sync_one()
        assert made.tags() == {"app": {"v1": built.digest}}
        assert foreign not in made.left.store.repositories["app"].blobs
        chosen = replace(rule(), foreign_layers=True)
        [held] = only(await made.sync_one(chosen), "held")
        assert held.hold is HoldKind.CONTENT
        assert f"does not have the layer {foreign}" in (held.reason or "")
        assert "foreign_layers = false" in (held.reason or "")
        made.source.store.add_blob("app", foreign, Blob(b"windows"))
        result = await made.sync_one(chosen)
        assert [each.reason for each in only(result, "copied")] == ["the rule wants other parts of it now"]
        assert foreign in made.left.store.repositories["app"].blobs
        assert _was_idle(await made.sync_one(chosen))


@pytest.mark.parametrize("where", ["left", "mirror"])
async def test_a_foreign_layer_that_the_source_lacks_is_not_missed_where_the_destination_or_a_mirror_has_it(
    where: str,
) -> None:
    async with world(mirrors=("mirror",)) as made:
        built = made.put("app", "v1", with_foreign_layer("windows"))
        foreign = digest_of(b"windows")
        load(made.left.store, "app", "other", image("other"))  # or nobody would ask what a new repository has
        made.sites[where].store.add_blob("app", foreign, Blob(b"windows"))
        result = await made.sync_one(replace(rule(mirrors=("mirror",)), foreign_layers=True))
        assert result.outcome == "ok"
        assert made.tags()["app"]["v1"] == built.digest
        assert foreign in made.left.store.repositories["app"].blobs
