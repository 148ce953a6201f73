"""The engine's small parts: window, presence, leftovers, claims, places in hand, images, recorder."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.demo.images import image, index
from replicator.engine.context import Context
from replicator.engine.coordination import REMEMBER_SECONDS, RepositoryLocks, TagClaims
from replicator.engine.faults import Fault, faults
from replicator.engine.observe.created import parse_created
from replicator.engine.observe.destination import Catalog
from replicator.engine.observe.wanted import WantedTag
from replicator.engine.plan.action import Action
from replicator.engine.plan.stale import StaleTags
from replicator.engine.queue import Prepared, ReadAhead
from replicator.engine.record import Recorder
from replicator.engine.referrers import ReferrersAPIs
from replicator.engine.result import Totals
from replicator.engine.transfer.presence import MAX_AGE_SECONDS, Presence
from replicator.errors import Corrupt, HoldKind, NotFound, StateError, Unavailable
from replicator.events import Events
from replicator.model.descriptor import Descriptor
from replicator.model.digest import Digest, digest_of
from replicator.model.image import MAX_DEPTH, Image, read_image
from replicator.model.manifest import Manifest
from replicator.ports import Entry, Pending, TagBelief
from replicator.state.memory import MemoryState
from tests.engine.world import rule
from tests.fakes.clock import FakeClock
from tests.fakes.memory import MemorySite

A, B, C = (digest_of(text.encode()) for text in "abc")


def _action(tag: str, digest: Digest = A, attempts: int = 0) -> Action:
    return Action("app", "app", WantedTag(tag, tag, digest), digest, "not there yet", 1.0, 0.0, attempts)


def _prepared(tag: str, blobs: dict[Digest, int]) -> Prepared:
    described = {digest: Descriptor("text/plain", digest, size) for digest, size in blobs.items()}
    return Prepared.of(_action(tag), Image(image("any").manifest, {}, described))


def _order(*images: Prepared) -> list[str | None]:
    window = ReadAhead()
    for one in images:
        window.add(one)
    return [taken.action.wanted.tag for _ in images if (taken := window.take())]


def test_image_that_shares_most_bytes_goes_first() -> None:
    lone = _prepared("lone", {C: 900})
    some, most = _prepared("some", {A: 10}), _prepared("most", {A: 10, B: 100})
    other = _prepared("other", {B: 100})
    assert _order(lone, some, most, other) == ["most", "lone", "some", "other"]


def test_among_equals_the_first_that_came_goes_first() -> None:
    assert _order(*(_prepared(tag, {}) for tag in "abc")) == ["a", "b", "c"]


def test_window_counts_what_its_manifests_take() -> None:
    window, built = ReadAhead(), image("x")
    one = Prepared.of(_action("x"), Image(built.manifest, {built.digest: built.manifest}, {}))
    window.add(one)
    assert (len(window), window.manifest_bytes) == (1, len(built.manifest.body))
    window.take()
    assert (len(window), window.manifest_bytes) == (0, 0)
    assert window.take() is None


@given(st.lists(st.sets(st.sampled_from([A, B, C])), max_size=8), st.lists(st.booleans(), max_size=20))
def test_window_always_gives_out_what_shares_most_of_what_it_has(
    images: list[set[Digest]], takes: list[bool]
) -> None:
    sizes = {A: 5, B: 7, C: 11}
    waiting = [
        _prepared(str(number), {digest: sizes[digest] for digest in one}) for number, one in enumerate(images)
    ]
    window, inside = ReadAhead(), list[Prepared]()

    def shared(one: Prepared) -> int:
        others = [other.image.blobs for other in inside if other is not one]
        return sum(sizes[digest] for digest in one.image.blobs for blobs in others if digest in blobs)

    for take in [*takes, *[False] * len(images), *[True] * len(images)]:
        if take and inside:
            scores = [shared(one) for one in inside]
            assert window.take() is inside.pop(scores.index(max(scores)))
        elif not take and waiting:
            inside.append(waiting.pop(0))
            window.add(inside[-1])
        assert len(window) == len(inside)
    assert not window._holders


def test_presence_is_forgotten_after_its_time() -> None:
    clock = FakeClock()
    presence = Presence(clock)
    presence.add("app", A)
    clock.advance(MAX_AGE_SECONDS - 1)
    assert presence.has("app", A)
    assert list(presence.elsewhere("other", A)) == ["app"]
    clock.advance(2)
    assert not presence.has("app", A)
    assert list(presence.elsewhere("other", A)) == []


def test_presence_seen_again_lasts_again() -> None:
    clock = FakeClock()
    presence = Presence(clock)
    presence.add("app", A)
    clock.advance(MAX_AGE_SECONDS - 1)
    presence.add("app", A)
    clock.advance(MAX_AGE_SECONDS - 1)
    assert presence.has("app", A)


def test_presence_that_proved_wrong_is_taken_back_there_alone() -> None:
    presence = Presence(FakeClock())
    for repository in ("app", "other"):
        presence.add(repository, A)
    presence.forget("app", [A, B])
    assert not presence.has("app", A)
    assert presence.has("other", A)


def test_first_claim_holds() -> None:
    claims = TagClaims()
    place = ("left", "app")
    here, there = ("source", "app", "v1"), ("second", "app", "v1")
    assert claims.claim(place, "v1", "one", here, A) is None
    assert claims.claim(place, "v1", "two", there, A) is None
    assert claims.claim(place, "v1", "two", there, B) == "one"
    assert claims.claim(place, "v2", "two", there, B) is None
    assert claims.claim(("right", "app"), "v1", "two", there, B) is None


def test_claim_of_the_same_source_tag_is_no_other_claim_whatever_it_is_by_now() -> None:
    claims, here = TagClaims(), ("source", "app", "v1")
    assert claims.claim(("left", "app"), "v1", "one", here, A) is None
    assert claims.claim(("left", "app"), "v1", "two", here, B) is None


async def test_place_in_hand_is_given_on_in_turn() -> None:
    locks, order = RepositoryLocks(FakeClock()), list[int]()
    place = ("left", "app")

    async def use(number: int) -> None:
        await locks.take(place)
        order.append(number)
        await asyncio.sleep(0)
        locks.give_back(place)

    async with asyncio.TaskGroup() as tasks:
        for number in range(4):
            tasks.create_task(use(number))
    assert order == [0, 1, 2, 3]
    assert not locks._locks


async def test_who_gives_up_waiting_for_a_place_leaves_nothing() -> None:
    locks = RepositoryLocks(FakeClock())
    place = ("left", "app")
    await locks.take(place)
    waiting = asyncio.create_task(locks.take(place))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    locks.give_back(place)
    assert not locks._locks


def test_what_was_settled_is_known_by_origin_and_not_for_ever() -> None:
    clock = FakeClock()
    locks = RepositoryLocks(clock)
    target, origin = ("left", "app", "v1"), ("source", "app", "v1")
    locks.settle(target, origin, 10.0)
    assert locks.is_settled_since(target, origin, 9.0)
    assert not locks.is_settled_since(target, origin, 10.0)
    assert not locks.is_settled_since(target, ("second", "app", "v1"), 9.0)
    assert not locks.is_settled_since(("left", "app", "v2"), origin, 9.0)
    clock.advance(2 * REMEMBER_SECONDS)
    locks.settle(("left", "app", "v2"), origin, clock.monotonic())
    assert len(locks._settled) == 1


def _catalog(**tags: str) -> Catalog:
    beliefs = {tag: TagBelief(tag, A, A, name, 0.0) for tag, name in tags.items()}
    pending = {tag: Pending("app", tag, A, 0.0) for tag in ("late", "lost")}
    return Catalog(
        MemorySite("left").repository("app"), frozenset(tags) | {"foreign"}, None, 0.0, fresh=False, beliefs=beliefs,
        pending=pending,
    )  # fmt: skip


def test_leftovers_are_ours_listed_and_gone_at_every_source() -> None:
    leftovers = StaleTags("rule")
    catalog = _catalog(here="rule", there="rule", gone="rule", theirs="other")
    for repository, present in (("a", ["here"]), ("b", ["there"])):
        leftovers.open(repository, "app", catalog)
        leftovers.wanted("app", "late")
        leftovers.present("app", present)
    assert [(one.target, one.tag) for one in leftovers.gone()] == [("app", "gone")]
    assert list(leftovers.pending()) == [("app", "lost")]


def test_nothing_is_called_gone_where_the_source_was_not_listed() -> None:
    leftovers = StaleTags("rule")
    leftovers.open("a", "app", _catalog(gone="rule"))
    leftovers.present("app", None)
    assert list(leftovers.gone()) == []


async def _read(built: dict[Digest, Manifest], root: Digest) -> Image:
    async def read(digest: Digest) -> Manifest:
        if digest not in built:
            raise NotFound("source", "read manifest", digest)
        return built[digest]

    return await read_image(root, read, "source", "app")


async def test_image_is_read_whole_and_each_manifest_once() -> None:
    shared = image("shared")
    root = index([index([shared]), shared])
    reads: list[Digest] = []
    manifests = {one.digest: one.manifest for one in root.walk()}

    async def read(digest: Digest) -> Manifest:
        reads.append(digest)
        return manifests[digest]

    found = await read_image(root.digest, read, "source", "app")
    assert set(found.manifests) == set(manifests)
    assert set(found.blobs) == set(shared.blobs)
    assert len(reads) == len(set(reads)) == 3


async def test_image_nested_too_deep_is_refused() -> None:
    root = image("x")
    for _ in range(MAX_DEPTH + 1):
        root = index([root])
    with pytest.raises(Corrupt, match="levels"):
        await _read({one.digest: one.manifest for one in root.walk()}, root.digest)


async def test_manifest_that_contains_itself_is_refused() -> None:
    root = index([image("x")])
    child = root.manifest.children[0].digest
    loop = msgspec.structs.replace(root.manifest, descriptor=root.manifest.children[0])
    with pytest.raises(Corrupt, match="contains itself"):
        await _read(
            {root.digest: root.manifest, child: msgspec.structs.replace(loop, body=image("x").manifest.body)},
            root.digest,
        )


async def test_child_of_another_size_than_its_index_says_is_refused() -> None:
    root = index([image("x")])
    child = root.manifest.children[0].digest
    with pytest.raises(Corrupt, match="bytes, not 557 as its index says"):
        await _read({root.digest: root.manifest, child: index([root]).manifest}, root.digest)


async def test_manifests_of_an_image_are_bounded_by_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    root = index([image("x"), image("y")])
    whole = {one.digest: one.manifest for one in root.walk()}
    await _read(whole, root.digest)
    monkeypatch.setattr(
        "replicator.model.image.MAX_MANIFEST_BYTES", sum(len(one.body) for one in whole.values()) - 1
    )
    with pytest.raises(Corrupt, match="bytes of manifests"):
        await _read(whole, root.digest)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2024-01-01T00:00:00Z", 1_704_067_200.0),
        ("2024-01-01T01:00:00.123456789+01:00", 1_704_067_200.123456),
        ("2024-01-01T00:00:00", 1_704_067_200.0),
        ("yesterday", None),
        ("", None),
    ],
)
def test_creation_time_is_read_as_tools_write_it(text: str, at: float | None) -> None:
    assert parse_created(f'{{"created": "{text}"}}'.encode()) == at


@given(st.binary(max_size=50))
def test_no_config_makes_the_creation_time_fail(config: bytes) -> None:
    parse_created(config)


def test_fault_names_what_happened() -> None:
    with (
        pytest.raises(Fault, match="left: app: list tags: unexpected ValueError: odd") as caught,
        faults("left", "list tags", "app"),
    ):
        raise ExceptionGroup("group", [ValueError("odd")])
    assert caught.value.reason == "internal"


def test_fault_lets_a_lost_state_out_of_a_group() -> None:
    with pytest.raises(StateError, match="gone"), faults("left", "list tags"):
        raise ExceptionGroup("group", [ValueError("odd"), ExceptionGroup("inner", [StateError("gone")])])


def test_fault_leaves_a_sites_error_as_it_is() -> None:
    with pytest.raises(Unavailable), faults("left", "list tags"):
        raise Unavailable("left", "list tags", "down")


def _recorder(state: MemoryState | None = None) -> Recorder:
    clock = FakeClock()
    context = Context(
        {},
        MemoryState(clock) if state is None else state,
        Events(),
        clock,
        rules={"rule": rule()},
        locks=RepositoryLocks(clock),
        apis=ReferrersAPIs(clock),
    )
    return Recorder(rule(), "left", context)


DOWN = Unavailable("left", "write manifest", "down", repository="app")


@pytest.mark.parametrize(
    ("verdicts", "outcome"),
    [
        ([], "ok"),
        (["copied"], "ok"),
        (["held"], "ok"),
        (["failed"], "failed"),
        (["copied", "failed"], "partial"),
        (["unchanged", "failed"], "partial"),
        (["postponed"], "failed"),
        (["unchanged", "look failed"], "partial"),
        (["look failed"], "failed"),
    ],
)
def test_outcome_claims_no_more_than_was_done(verdicts: list[str], outcome: str) -> None:
    recorder = _recorder()
    for number, verdict in enumerate(verdicts):
        action = _action(f"v{number}")
        match verdict:
            case "copied":
                recorder.copied(action, Totals(), 0.1)
            case "unchanged":
                recorder.unchanged("app")
            case "held":
                recorder.held(action, "schema 1", HoldKind.CONTENT)
            case "failed":
                recorder.failed(action, DOWN)
            case "postponed":
                recorder.postponed(action, "failed before")
            case _:
                recorder.failure(DOWN)
    assert recorder.close(interrupted=False).outcome == outcome


class _Counting(MemoryState):
    """Counts what it is told."""

    told = 0

    def record(self, entry: Entry) -> None:
        self.told += 1
        super().record(entry)


@pytest.mark.parametrize(
    ("known", "reason", "was_queued", "told"),
    [
        ("", "archived", False, 1),
        ("archived", "archived", False, 0),
        ("archived", "immutable", False, 1),
        ("archived", "archived", True, 1),  # recorded as pending meanwhile
    ],
)
async def test_hold_that_is_known_is_not_recorded_again(
    known: str, reason: str, told: int, *, was_queued: bool
) -> None:
    state = _Counting(FakeClock())
    recorder = _recorder(state)
    action = msgspec.structs.replace(_action("v1"), hold=known)
    recorder.held(action, reason, HoldKind.ARCHIVED, was_queued=was_queued)
    assert state.told == told
    kept = await state.pending("rule", recorder.result.destination, "app")
    assert [(each.hold, each.reason) for each in kept.values()] == [(reason, "archived")] * told


def test_interrupted_run_is_no_complete_look() -> None:
    recorder = _recorder()
    recorder.copied(_action("v1"), Totals(), 0.1)
    row = recorder.close(interrupted=True)
    assert (row.outcome, row.complete_look, row.in_step) == ("interrupted", False, 1)


def test_row_carries_the_last_error_with_its_place() -> None:
    recorder = _recorder()
    recorder.failed(_action("v1"), DOWN)
    assert recorder.close(interrupted=False).error == "left: app: write manifest: down"
