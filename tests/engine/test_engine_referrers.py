"""Signatures, SBOMs and attestations travel with their image, and are there before its tag."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from msgspec.structs import replace

from replicator.demo.images import BuiltImage, image, index, load
from replicator.engine.content import referrers as content
from replicator.engine.content.referrers import MAX_REFERRERS
from replicator.engine.referrers import ReferrersAPIs
from replicator.engine.transfer import referrers as writing
from replicator.engine.transfer.referrers import ROUNDS, ReferrersLists
from replicator.errors import Denied, Immutable, NotFound, NotReplicated, Rejected, Unavailable
from replicator.events import Warned
from replicator.model.companion import fallback_tag, is_companion, legacy_tags
from replicator.model.digest import Digest
from replicator.model.manifest import Kind, parse_manifest
from replicator.model.mediatypes import OCI_INDEX
from replicator.policy.rule import Referrers
from tests.engine.world import World, rule, until, world
from tests.fakes.clock import FakeClock, StillClock
from tests.fakes.memory import MemorySite
from tests.fakes.referrers import fallback_index, referrer


def signature(of: BuiltImage, seed: str = "signature") -> BuiltImage:
    return image(f"{seed} of {of.digest}", 1, subject=of.manifest.descriptor)


def referrers_lists(warnings: list[str] | None = None, clock: FakeClock | None = None) -> ReferrersLists:
    clock, warnings = clock or FakeClock(), [] if warnings is None else warnings
    return ReferrersLists(ReferrersAPIs(clock), clock, warnings.append)


def listed(*entries: BuiltImage) -> BuiltImage:
    """A fallback tag's index, in another order than ours."""
    children = [entry.manifest.descriptor for entry in reversed(entries)]
    body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children, "annotations": {"by": "other"}}
    return BuiltImage(parse_manifest(msgspec.json.encode(body), OCI_INDEX), {})


def attach(w: World, *referrers: BuiltImage, site: str = "source") -> None:
    for each in referrers:
        load(w.sites[site].store, "app", None, each)


def fallback_entries(site: MemorySite, subject: Digest) -> list[Digest]:
    content = site.store.repositories["app"]
    digest = content.tags.get(fallback_tag(subject))
    if digest is None:
        return []
    manifest = content.manifests[digest]
    assert manifest.kind is Kind.INDEX
    return [child.digest for child in manifest.children]


def refers(site: MemorySite, subject: BuiltImage) -> set[Digest]:
    return {one.digest for one in site.store.referrers("app", subject.digest)}


async def test_referrers_of_root_and_children_and_of_referrers_arrive() -> None:
    async with world() as w:
        child = image("child")
        root = w.put("app", "v1", index([child]))
        signed, attested = signature(root), signature(child, "sbom")
        countersigned = signature(signed, "countersignature")
        attach(w, signed, attested, countersigned)
        assert (await w.sync_one()).outcome == "ok"
        assert refers(w.left, root) == {signed.digest}
        assert refers(w.left, child) == {attested.digest}
        assert refers(w.left, signed) == {countersigned.digest}


@pytest.mark.parametrize(("mode", "of_root", "of_child"), [("root", 1, 0), ("none", 0, 0), ("all", 1, 1)])
async def test_the_rule_says_how_much_of_it_travels(mode: Referrers, of_root: int, of_child: int) -> None:
    async with world() as w:
        child = image("child")
        root = w.put("app", "v1", index([child]))
        attach(w, signature(root), signature(child))
        await w.sync_one(replace(rule(), referrers=mode))
        assert (len(refers(w.left, root)), len(refers(w.left, child))) == (of_root, of_child)
        assert w.source.count("referrers") == {"root": 2, "none": 0, "all": 4}[mode]


async def test_the_tag_is_not_visible_before_what_refers_to_it() -> None:
    async with world() as w:
        root = w.put("app", "v1")
        attach(w, signature(root))
        await w.sync_one()
        order = [(one.method, one.subject) for one in w.left.operations if one.method == "write_manifest"]
        assert [subject for _, subject in order] == [signature(root).digest, "v1"]


async def test_a_listing_that_fails_fails_the_tag_and_nothing_becomes_visible() -> None:
    async with world() as w:
        w.put("app", "v1")
        w.source.fail("referrers", Unavailable("source", "list referrers", "503"), times=99)
        done = await w.sync_one()
        assert (done.outcome, done.totals.tags.failed) == ("failed", 1)
        assert w.tags() == {}


@pytest.mark.parametrize("source_api", [True, False])
@pytest.mark.parametrize("destination_api", [True, False])
async def test_they_are_found_at_both_kinds_of_registries(*, source_api: bool, destination_api: bool) -> None:
    async with world() as w:
        w.source.referrers_api, w.left.referrers_api = source_api, destination_api
        root = w.put("app", "v1")
        one, two = signature(root), signature(root, "sbom")
        attach(w, one, two)
        if not source_api:
            load(w.source.store, "app", fallback_tag(root.digest), listed(one, two))
        done = await w.sync_one()
        assert done.outcome == "ok"
        entries = fallback_entries(w.left, root.digest)
        assert entries == ([] if destination_api else sorted([one.digest, two.digest]))
        assert refers(w.left, root) == {one.digest, two.digest}
        assert done.totals.tags.copied == 1, "a fallback tag is not a tag of its own"


async def test_an_unchanged_list_is_not_written_again_and_entries_of_others_stay() -> None:
    async with world() as w:
        w.left.referrers_api = False
        root = w.put("app", "v1")
        ours, theirs = signature(root), signature(root, "scanner at the destination")
        attach(w, ours)
        attach(w, theirs, site="left")
        load(w.left.store, "app", fallback_tag(root.digest), listed(theirs))
        await w.sync_one()
        assert fallback_entries(w.left, root.digest) == sorted([ours.digest, theirs.digest])
        w.left.operations.clear()
        w.forget()
        w.put("app", "v2", root)
        await w.sync_one()
        assert not [
            one for one in w.left.operations if one.method == "write_manifest" and is_companion(one.subject)
        ]


@pytest.mark.parametrize("api", [True, False])
async def test_what_only_the_destination_has_is_left_alone_whatever_becomes_of_the_source(
    *, api: bool
) -> None:
    """The signatures that ECR adds by itself, the SBOMs of a scanner."""
    async with world(clock=FakeClock()) as w:
        w.left.referrers_api = api
        root = w.put("app", "v1")
        ours, theirs = signature(root), signature(root, "scanner at the destination")
        attach(w, ours)
        await w.sync_one()
        attach(w, theirs, site="left")
        if not api:
            load(w.left.store, "app", fallback_tag(root.digest), listed(ours, theirs))
        before = dict(w.left.store.repositories["app"].manifests)
        await w.sync_one(recheck=True)
        w.put("app", "v1", image("moved"))  # the tag moves on
        await w.sync_one(recheck=True)
        w.source.store.delete_tag("app", "v1")  # and goes
        await w.sync_one(recheck=True)
        assert before.keys() <= w.left.store.repositories["app"].manifests.keys()
        assert refers(w.left, root) == {ours.digest, theirs.digest}
        if not api:
            assert sorted(fallback_entries(w.left, root.digest)) == sorted([ours.digest, theirs.digest])
        assert w.left.count("delete_tag") == 0


async def test_a_site_without_the_api_is_asked_once_an_hour() -> None:
    async with world() as w:
        w.source.referrers_api = False
        for number in range(20):
            w.put("app", f"v{number}")
        assert (await w.sync_one()).outcome == "ok"
        assert w.source.count("referrers") == 1, "the others wait for the answer"
        assert w.source.count("read_manifest") == 20, "the listing shows that there are no fallback tags"


async def test_legacy_tags_of_cosign_go_with_their_image_and_are_no_tags_of_their_own() -> None:
    async with world() as w:
        root = w.put("app", "v1")
        sig, att, _ = legacy_tags(root.digest)
        signed, attested = image("old signature"), image("old attestation")
        load(w.source.store, "app", sig, signed)
        load(w.source.store, "app", att, attested)
        load(
            w.source.store,
            "app",
            legacy_tags(Digest("sha256:" + "0" * 64))[0],
            image("of an image that is gone"),
        )
        done = await w.sync_one()
        assert w.tags() == {"app": {"v1": root.digest, sig: signed.digest, att: attested.digest}}
        assert done.totals.tags.copied == 1


async def test_the_image_under_a_fallback_tag_is_left_out_and_said() -> None:
    """What `cosign copy` makes of it."""
    async with world() as w:
        w.source.referrers_api = False
        root = w.put("app", "v1")
        load(w.source.store, "app", fallback_tag(root.digest), root)
        assert (await w.sync_one()).outcome == "ok"
        assert w.tags() == {"app": {"v1": root.digest}}
        assert any("is not an index of referrers" in e.text for e in w.seen if isinstance(e, Warned))


async def test_something_else_under_the_fallback_tag_of_the_destination_holds_the_image() -> None:
    async with world() as w:
        w.left.referrers_api = False
        root = w.put("app", "v1")
        attach(w, signature(root))
        other = image("a user's own")
        load(w.left.store, "app", fallback_tag(root.digest), other)
        done = await w.sync_one()
        assert done.totals.tags.held == 1
        assert w.tags() == {"app": {fallback_tag(root.digest): other.digest}}


@pytest.mark.parametrize("what", ["gone", "of another subject"])
async def test_an_entry_that_is_none_is_left_out_and_said(what: str) -> None:
    async with world() as w:
        w.source.referrers_api = False
        root, other = w.put("app", "v1"), image("other")
        good, bad = signature(root), signature(other)
        attach(w, good, bad)
        load(w.source.store, "app", fallback_tag(root.digest), listed(good, bad))
        if what == "gone":
            del w.source.store.repositories["app"].manifests[bad.digest]
        assert (await w.sync_one()).outcome == "ok"
        assert refers(w.left, root) == {good.digest}
        assert any(bad.digest in e.text for e in w.seen if isinstance(e, Warned))


async def test_referrers_that_refer_to_each_other_end() -> None:
    """Digests make a cycle impossible, but a list of them can be as deep as it likes."""
    async with world() as w:
        root = last = w.put("app", "v1")
        for number in range(8):
            last = signature(last, f"level {number}")
            attach(w, last)
        assert (await w.sync_one()).outcome == "ok"
        assert len([one for one in w.left.operations if one.method == "write_manifest"]) == 1 + 4
        assert refers(w.left, root)


@pytest.mark.parametrize("processes", [1, 6])
async def test_six_writers_of_one_list_lose_nothing(processes: int) -> None:
    """In one process they take turns; in six they replace each other's list, and see so when they read it back."""
    async with world() as w:
        w.left.referrers_api = False
        root = image("root")
        signatures = [signature(root, f"{number}") for number in range(6)]
        attach(w, *signatures, site="left")
        clock = FakeClock()
        lists = [referrers_lists(clock=clock) for _ in range(processes)]
        repository, tag = w.left.repository("app"), fallback_tag(root.digest)
        pause = w.left.pause("write_manifest", subject=tag)
        async with asyncio.TaskGroup() as tasks:
            for number, each in enumerate(signatures):
                tasks.create_task(lists[number % processes].ensure(repository, root.digest, [each.manifest]))
            # All processes have read "no such tag" before the first one writes.
            await until(lambda: w.left.count("write_manifest", tag, "running") == processes)
            pause.release()
        if processes > 1:
            assert len(fallback_entries(w.left, root.digest)) == 1, "the last one won"
        for one in lists:
            await one.aclose()
        assert fallback_entries(w.left, root.digest) == sorted(each.digest for each in signatures)


async def test_a_list_that_others_keep_replacing_is_given_up_and_said() -> None:
    async with world() as w:
        w.left.referrers_api = False
        root = image("root")
        attach(w, signature(root), site="left")
        warnings: list[str] = []
        lists, repository = referrers_lists(warnings), w.left.repository("app")
        tag, other = fallback_tag(root.digest), fallback_index()
        await lists.ensure(repository, root.digest, [signature(root).manifest])
        for rounds in range(1, ROUNDS + 1):

            def was_written(rounds: int = rounds) -> bool:
                return w.left.count("write_manifest", tag, "done") == rounds

            await until(was_written)
            load(w.left.store, "app", tag, other)
        await lists.aclose()
        assert w.left.count("write_manifest", tag) == ROUNDS
        assert warnings == [f"left: app: tag {tag}: another writer replaced the list of referrers 3 times"]


async def test_an_immutable_fallback_tag_is_named_with_the_remedy() -> None:
    async with world() as w:
        w.left.referrers_api = False
        root = w.put("app", "v1")
        attach(w, signature(root))
        refusal = Rejected("left", "write manifest", "409: immutable", status=409)
        w.left.fail("write_manifest", refusal, subject=fallback_tag(root.digest), times=99)
        with pytest.raises(Rejected, match=r"exempt sha256-\*"):
            await referrers_lists().ensure(w.left.repository("app"), root.digest, [signature(root).manifest])


async def test_a_fallback_tag_known_to_be_immutable_holds_the_image_with_the_remedy() -> None:
    async with world() as w:
        w.left.referrers_api = False
        root = w.put("app", "v1")
        attach(w, signature(root))
        refusal = Immutable("left", "write manifest", "the tag is immutable")
        w.left.fail("write_manifest", refusal, subject=fallback_tag(root.digest), times=99)
        done = await w.sync_one()
        assert done.totals.tags.held == 1
        assert "exempt sha256-*" in (done.actions[0].reason or "")
        assert w.tags() == {}


async def test_a_registry_that_lists_nothing_of_a_subject_it_lacks_gets_the_subject_first() -> None:
    """Quay; a fallback tag there would be litter."""
    async with world() as w:
        root = w.put("app", "v1")
        attach(w, signature(root))
        unknown = NotFound("left", "list referrers", "400: manifest invalid")
        w.left.fail("referrers", unknown, subject=root.digest, times=1)
        assert (await w.sync_one()).outcome == "ok"
        assert w.tags() == {"app": {"v1": root.digest}}
        assert w.left.count("referrers", root.digest) == 2


async def test_what_a_registry_lost_of_manifests_put_at_once_is_put_again() -> None:
    """As at olareg, which adds to its list without a lock; a fallback tag would not be read there."""
    async with world() as w:
        root = w.put("app", "v1")
        attach(w, *(signature(root, f"{number}") for number in range(3)))
        lost = signature(root, "1").digest
        w.left.unlisted.add(lost)
        done = await w.sync_one()
        assert done.outcome == "ok"
        assert len(refers(w.left, root)) == 3
        assert w.left.count("write_manifest", lost) == 2
        assert w.left.count("referrers", root.digest) == 3, (
            "listed, with the subject put, with the lost one put"
        )
        assert w.tags() == {"app": {"v1": root.digest}}, "no fallback tag"


async def test_a_destination_that_does_not_show_its_referrers_gets_a_fallback_tag() -> None:
    async with world() as w:
        root = w.put("app", "v1")
        attach(w, signature(root))
        w.left.fail("referrers", Denied("left", "list referrers", "403"), times=99)
        assert (await w.sync_one()).outcome == "ok"
        assert fallback_entries(w.left, root.digest) == [signature(root).digest]


async def test_what_is_no_list_is_not_overwritten() -> None:
    async with world() as w:
        w.left.referrers_api = False
        root = image("root")
        load(w.left.store, "app", fallback_tag(root.digest), root)
        with pytest.raises(NotReplicated, match="is not overwritten"):
            await referrers_lists().ensure(w.left.repository("app"), root.digest, [signature(root).manifest])


@pytest.mark.parametrize(
    ("tag", "is_one"),
    [
        ("sha256-" + "a" * 64, True),
        ("sha256-" + "a" * 64 + ".sig", True),
        ("sha512-" + "0" * 64, True),
        ("sha256-" + "a" * 63, False),
        ("sha256-" + "A" * 64, False),
        ("sha256-" + "a" * 64 + ".sign", False),
        ("v1", False),
        ("sha256", False),
    ],
)
def test_companion_tags(tag: str, *, is_one: bool) -> None:
    assert is_companion(tag) is is_one


async def test_a_new_signature_of_an_unchanged_image_is_found_within_a_day() -> None:
    clock = StillClock()
    async with world(clock=clock) as w:
        root = w.put("app", "v1")
        await w.sync_one()
        late = signature(root)
        attach(w, late)
        assert (await w.sync_one()).totals.tags.unchanged == 1, "it is not looked for in every run"
        clock.advance(24 * 3600.0 + 1)
        done = await w.sync_one()
        assert (done.totals.tags.copied, refers(w.left, root)) == (1, {late.digest})
        assert done.actions[0].reason == "something refers to it that is missing at the destination"
        clock.advance(24 * 3600.0 + 1)
        assert (await w.sync_one()).totals.tags.unchanged == 1


@pytest.mark.parametrize("source_api", [True, False])
async def test_a_recheck_finds_new_signatures_and_lost_ones(*, source_api: bool) -> None:
    clock = StillClock()
    async with world(clock=clock) as w:
        w.source.referrers_api = source_api
        root = w.put("app", "v1")
        first, second = signature(root), signature(root, "second")
        attach(w, first)
        load(w.source.store, "app", fallback_tag(root.digest), listed(first))
        await w.sync_one()
        assert (await w.sync_one(recheck=True)).totals.tags.unchanged == 1
        attach(w, second)
        load(w.source.store, "app", fallback_tag(root.digest), listed(first, second))
        assert (await w.sync_one(recheck=True)).totals.tags.copied == 1
        assert refers(w.left, root) == {first.digest, second.digest}
        del w.left.store.repositories["app"].manifests[first.digest]
        assert (await w.sync_one(recheck=True)).totals.tags.copied == 1
        assert refers(w.left, root) == {first.digest, second.digest}


async def test_a_legacy_tag_that_moved_is_found() -> None:
    clock = StillClock()
    async with world(clock=clock) as w:
        root = w.put("app", "v1")
        tag = legacy_tags(root.digest)[0]
        load(w.source.store, "app", tag, image("one signature"))
        await w.sync_one()
        two = image("two signatures")
        load(w.source.store, "app", tag, two)
        clock.advance(24 * 3600.0 + 1)
        assert (await w.sync_one()).totals.tags.copied == 1
        assert w.tags()["app"][tag] == two.digest


async def test_a_legacy_tag_that_is_gone_since_it_was_listed_fails_nothing() -> None:
    clock = StillClock()
    async with world(clock=clock) as w:
        root = w.put("app", "v1")
        tag = legacy_tags(root.digest)[0]
        load(w.source.store, "app", tag, image("one signature"))
        await w.sync_one()
        clock.advance(24 * 3600.0 + 1)
        w.source.fail("resolve", NotFound("source", "resolve", "no such tag"), subject=tag)
        done = await w.sync_one()
        assert (done.outcome, done.totals.tags.unchanged) == ("ok", 1)
        assert w.source.count("resolve", tag, "NotFound") == 1


async def test_children_are_asked_for_at_once() -> None:
    clock = StillClock()
    async with world(clock=clock) as w:
        built = w.put("app", "v1", index([image(f"child {number}") for number in range(8)]))
        await w.sync_one()
        clock.advance(24 * 3600.0 + 1)
        w.source.peak.clear()
        assert (await w.sync_one()).totals.tags.unchanged == 1
        assert w.source.count("referrers", built.digest) > 0
        assert w.source.peak["referrers"] == 8


async def test_what_nobody_refers_to_costs_one_request_a_day_and_none_without_the_api() -> None:
    clock = StillClock()
    async with world(clock=clock) as w:
        for number in range(10):
            w.put("app", f"v{number}")
        await w.sync_one()
        w.source.operations.clear()
        w.left.operations.clear()
        clock.advance(24 * 3600.0 + 1)
        await w.sync_one()
        assert w.source.count("referrers") == 10
        assert w.left.count("referrers") == 0
        w.source.referrers_api = False
        clock.advance(24 * 3600.0 + 1)
        w.source.operations.clear()
        await w.sync_one()
        assert w.source.count("read_manifest") == 0


async def test_a_source_that_fails_to_list_is_no_source_without_signatures() -> None:
    clock = StillClock()
    async with world(clock=clock) as w:
        w.put("app", "v1")
        await w.sync_one()
        w.source.fail("referrers", Unavailable("source", "list referrers", "503"), times=99)
        clock.advance(24 * 3600.0 + 1)
        assert (await w.sync_one()).totals.tags.failed == 1


async def test_a_bad_entry_of_a_list_does_not_copy_the_image_each_day() -> None:
    clock = StillClock()
    async with world(clock=clock) as w:
        w.source.referrers_api = False
        root = w.put("app", "v1")
        gone = signature(root)
        attach(w, gone)
        load(w.source.store, "app", fallback_tag(root.digest), listed(gone))
        del w.source.store.repositories["app"].manifests[gone.digest]
        await w.sync_one()
        clock.advance(24 * 3600.0 + 1)
        assert (await w.sync_one()).totals.tags.unchanged == 1


async def test_a_destination_without_the_api_is_asked_once_an_hour_too() -> None:
    clock = FakeClock()
    async with world(clock=clock) as w:
        w.left.referrers_api = False
        for number in range(5):
            root = w.put("app", f"v{number}", image(f"{number}"))
            attach(w, signature(root))
        engine = w.engine()
        await engine.sync([rule()])
        asked = w.left.count("referrers", outcome="Unsupported")
        clock.advance(1800.0)
        await engine.sync([rule()], recheck=True)
        assert w.left.count("referrers", outcome="Unsupported") == asked, "the engine remembers it"


@pytest.mark.parametrize("tags", [(), ("v1",)], ids=["listed", "asked for"])
async def test_older_signatures_of_platforms_travel_as_those_of_the_index_do(tags: tuple[str, ...]) -> None:
    """`cosign sign --recursive`: podman verifies the platform's own signature."""
    async with world() as w:
        child = image("child")
        root = w.put("app", "v1", index([child]))
        for subject in (root, child):
            load(
                w.source.store, "app", legacy_tags(subject.digest)[0], image(f"signature of {subject.digest}")
            )
        await w.sync_one(rule(repositories=("app",), tags=tags))
        assert w.tags()["app"].keys() == {"v1", legacy_tags(root.digest)[0], legacy_tags(child.digest)[0]}


async def test_an_older_signature_of_a_platform_that_moves_is_noticed() -> None:
    async with world() as w:
        child = image("child")
        w.put("app", "v1", index([child]))
        await w.sync_one()
        added = image("signature of a platform")
        load(w.source.store, "app", legacy_tags(child.digest)[0], added)
        await w.sync_one(recheck=True)
        assert w.tags()["app"][legacy_tags(child.digest)[0]] == added.digest


@pytest.mark.parametrize("most", [20, pytest.param(MAX_REFERRERS, marks=pytest.mark.soak)])
async def test_a_list_as_long_as_it_may_be_arrives_and_one_more_fails_the_image(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "MAX_REFERRERS", most)
    async with world(clock=FakeClock()) as w:
        w.source.referrers_api = w.left.referrers_api = False
        root = w.put("app", "v1")
        signatures = [referrer(root, seed=f"{number}") for number in range(most + 1)]
        attach(w, *signatures)
        load(w.source.store, "app", fallback_tag(root.digest), fallback_index(*signatures))
        done = await w.sync_one()
        assert (done.outcome, w.tags()) == ("failed", {})
        assert f"has {most + 1} referrers" in done.failures[0].cause
        load(w.source.store, "app", fallback_tag(root.digest), fallback_index(*signatures[1:]))
        assert (await w.sync_one()).outcome == "ok"
        assert fallback_entries(w.left, root.digest) == sorted(each.digest for each in signatures[1:])


async def test_a_referrer_that_is_an_index_travels_whole() -> None:
    async with world() as w:
        root = w.put("app", "v1")
        parts = [image("part one"), image("part two")]
        body = msgspec.json.decode(index(parts).manifest.body) | {"subject": root.manifest.descriptor}
        whole = BuiltImage(parse_manifest(msgspec.json.encode(body), OCI_INDEX), {}, tuple(parts))
        attach(w, whole)
        assert (await w.sync_one()).outcome == "ok"
        assert refers(w.left, root) == {whole.digest}
        assert {each.digest for each in parts} <= w.left.store.repositories["app"].manifests.keys()


async def test_a_proxys_answer_instead_of_the_api_is_an_error_for_an_hour() -> None:
    clock = FakeClock()
    async with world(clock=clock) as w:
        root = w.put("app", "v1")
        apis, repository = ReferrersAPIs(clock), w.source.repository("app")
        assert list(await apis.listed(repository, root.digest) or ()) == []
        w.source.referrers_api = False
        with pytest.raises(Unavailable, match="was there a moment ago"):
            await apis.listed(repository, root.digest)
        clock.advance(3600.0)
        assert await apis.listed(repository, root.digest) is None


async def test_a_destination_that_hangs_keeps_no_run_from_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "CLOSE_SECONDS", 0.01)
    async with world() as w:
        w.left.referrers_api = False
        root = image("root")
        attach(w, signature(root), site="left")
        warnings: list[str] = []
        lists, repository = referrers_lists(warnings), w.left.repository("app")
        await lists.ensure(repository, root.digest, [signature(root).manifest])
        w.left.pause("read_manifest")
        await lists.aclose()
        assert warnings == ["lists of referrers that could not be read back within 0 s: 1"]
