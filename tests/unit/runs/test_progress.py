"""Progress: by the bytes that really move, with a time left that holds, on random graphs of images."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from replicator.cli.console import fields
from replicator.demo.images import BuiltImage, Layer, image, index, layer, load
from replicator.errors import Rejected, Unavailable
from replicator.events import (
    BlobDone,
    BytesWritten,
    Event,
    ImagePrepared,
    RetryPlanned,
    RunEnded,
    RunStarted,
    ScanMoved,
    TagDone,
    TagPlanned,
    TurnAwaited,
)
from replicator.policy.platforms import Platforms, parse_platform
from replicator.policy.rule import Rename
from replicator.runs.progress import FOLLOWED, DestinationProgress, Progress
from tests.engine.world import rule, world
from tests.fakes.clock import FakeClock

A, B, M = "sha256:" + "a" * 64, "sha256:" + "b" * 64, "sha256:" + "c" * 64


class Watched:
    """Progress with a clock of its own, fed one event after the other."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.progress = Progress(self.clock.monotonic)
        self(RunStarted("platform", "hub", ("fra",)))

    def __call__(self, *events: Event) -> Watched:
        for event in events:
            assert type(event) in FOLLOWED
            self.progress(event)
        return self

    def image(self, tag: str, *blobs: tuple[str, int], repository: str = "app") -> Watched:
        return self(
            TagPlanned("platform", "fra"), ImagePrepared("platform", "fra", repository, tag, blobs, ())
        )

    def ends(self, tag: str, outcome: str = "copied", repository: str = "app") -> Watched:
        return self(TagDone("platform", "fra", repository, tag, "copy", outcome))

    def moves(self, digest: str, position: int, count: int = 0, repository: str = "app") -> Watched:
        return self(BytesWritten("hub", "fra", count or position, repository, digest, position))

    def blob(self, digest: str, size: int, outcome: str, repository: str = "app") -> Watched:
        return self(BlobDone("hub", "fra", repository, digest, outcome, size))  # type: ignore[arg-type]

    @property
    def bytes(self) -> tuple[int, int]:
        at = self.progress.destination("fra")
        return at.bytes_moved, at.bytes_planned


def test_blob_that_two_images_share_is_counted_once() -> None:
    seen = Watched().image("v1", (A, 100), (B, 10)).image("v2", (A, 100))
    assert seen.bytes == (0, 110)
    assert seen.moves(A, 50).bytes == (50, 110)
    assert seen.blob(A, 100, "copied").bytes == (100, 110)


def test_present_and_mounted_blobs_leave_the_sum_as_soon_as_known() -> None:
    seen = Watched().image("v1", (A, 100), (B, 10))
    assert seen.blob(A, 100, "present").bytes == (0, 10)
    assert seen.blob(B, 10, "mounted").bytes == (0, 0)


def test_blob_for_another_repository_is_free_until_mounts_prove_not_to_work() -> None:
    blobs = [(f"sha256:{n}", 100) for n in range(4)]
    seen = Watched().image("v1", *blobs).image("v1", *blobs, repository="other")
    assert seen.bytes == (0, 400)
    for digest, _ in blobs[:3]:
        seen.blob(digest, 100, "copied").moves(digest, 50, repository="other")
        seen.blob(digest, 100, "copied", repository="other")
    assert seen.bytes == (600, 800)  # the last one will move twice, too


def test_blob_for_another_repository_moves_again_where_mounts_are_known_not_to_work() -> None:
    seen = Watched()
    for repository in ("app", "other"):
        prepared = ImagePrepared("platform", "fra", repository, "v1", ((A, 100),), (), mounts=False)
        seen(TagPlanned("platform", "fra"), prepared)
    assert seen.bytes == (0, 200)


def test_blob_that_was_moved_before_is_not_planned_again() -> None:
    seen = Watched().image("v1", (A, 100)).blob(A, 100, "copied").ends("v1")
    assert seen.image("v2", (A, 100), (B, 10)).bytes == (100, 110)


def test_transfer_that_starts_again_goes_back() -> None:
    seen = Watched().image("v1", (A, 100)).moves(A, 80)
    assert seen.moves(A, 10, 10).bytes == (10, 100)
    assert seen.moves(A, 30, 20).blob(A, 100, "failed").ends("v1", "failed").bytes == (0, 0)
    assert seen.progress.destination("fra").tags_failed == 1


def test_largest_transfers_have_site_and_rate() -> None:
    seen = Watched().image("v1", *((f"sha256:{n}", n * 100) for n in range(1, 6)))
    for number in range(1, 6):
        seen.moves(f"sha256:{number}", 50)
    seen.clock.advance(10)
    largest = seen.progress.transfers()
    assert [(each.size, each.source, each.destination, each.rate) for each in largest] == [
        (size, "hub", "fra", 5.0) for size in (500, 400, 300)
    ]
    assert len(seen.blob("sha256:5", 500, "copied").progress.transfers()) == 3


def test_site_that_has_requests_wait_is_named() -> None:
    seen = Watched()(
        TurnAwaited("hub", +1), TurnAwaited("hub", +1), RetryPlanned("fra", "x", "throttled", 30)
    )
    assert [(each.site, each.requests, each.seconds) for each in seen.progress.waits()] == [
        ("fra", 0, 30.0),
        ("hub", 2, None),
    ]
    seen.clock.advance(31)
    assert seen(TurnAwaited("hub", -1), TurnAwaited("hub", -1)).progress.waits() == []
    assert seen(RetryPlanned("fra", "x", "reset", 30)).progress.waits() == []  # nobody asked us to wait


def test_scan_in_progress_is_told_and_gives_no_time_left() -> None:
    seen = Watched().image("v1", (A, 100)).moves(A, 50)
    assert seen.progress.seconds_left() is not None
    seen(ScanMoved("platform", "hub", 3, 10, is_listed=False))
    (scan,) = seen.progress.scans()
    assert (scan.scanned, scan.found, scan.is_listed) == (3, 10, False)
    assert seen.progress.seconds_left() is None
    assert fields(seen.progress)["scanned"] == "3/10"
    assert seen(ScanMoved("platform", "hub", 10, 10, is_listed=True, is_over=True)).progress.scans() == []


def test_run_that_begins_while_none_is_in_progress_starts_anew() -> None:
    seen = Watched().image("v1", (A, 100)).blob(A, 100, "copied").ends("v1")
    seen(RunStarted("other", "hub", ("fra",)))
    assert seen.bytes == (100, 100)  # the first run goes on
    ended = RunEnded("platform", "fra", "ok", 1.0, 1, 0, 0, 0)
    seen(ended, RunEnded("other", "fra", "ok", 1.0, 1, 0, 0, 0), RunStarted("platform", "hub", ("fra",)))
    assert seen.bytes == (0, 0)
    assert seen.progress.destinations() == []


@given(st.data())
def test_the_sum_is_that_of_what_is_left_however_events_interleave(data: st.DataObject) -> None:
    """What is kept up to date piece by piece is what counting it all anew would give."""
    seen = Watched()
    names = [f"sha256:{n}" for n in range(5)]
    for number in range(data.draw(st.integers(1, 12))):
        repository = data.draw(st.sampled_from(["app", "other"]))
        digest = data.draw(st.sampled_from(names))
        size = (names.index(digest) + 1) * 100
        match data.draw(st.sampled_from(["image", "move", "done", "end"])):
            case "image":
                chosen = data.draw(st.lists(st.sampled_from(names), unique=True))
                blobs = [(each, (names.index(each) + 1) * 100) for each in chosen]
                seen.image(f"v{number}", *blobs, repository=repository)
            case "move":
                seen.moves(digest, data.draw(st.integers(1, size)), repository=repository)
            case "done":
                outcome = data.draw(st.sampled_from(["copied", "present", "mounted", "failed"]))
                seen.blob(digest, size, outcome, repository=repository)
            case "end":
                which = data.draw(st.integers(0, 11))
                seen.ends(f"v{which}", data.draw(st.sampled_from(["copied", "failed"])), repository)
        ledger = seen.progress._ledgers["fra"]
        assert ledger.left == sum(each.left(is_shared=ledger._is_shared) for each in ledger._items.values())
        assert ledger.moved >= 0
        assert ledger.left >= 0


# --- the time left, with a real engine at a steady rate ---


@dataclass
class Steady:
    """Moves time by the bytes that go out, and notes what the time left was said to be."""

    clock: FakeClock
    rate: float
    progress: Progress
    said: list[tuple[float, float | None]] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        if isinstance(event, BytesWritten):
            self.clock.advance(event.count / self.rate)
            self.said.append((self.clock.monotonic(), self.progress.seconds_left()))


LAYERS = [layer(f"layer/{number}", size) for number, size in enumerate((30_000, 50_000, 70_000, 90_000))]
REPOSITORIES = ("a", "b", "c/d")


def _random_image(dice: random.Random) -> BuiltImage:
    """An image of some shared layers and one of its own, or an index of such."""
    singles = []
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        seed, own = dice.randrange(10), dice.randrange(10_000, 40_000)
        layers: list[Layer] = [*dice.sample(LAYERS, dice.randrange(4)), layer(f"own/{seed}/{own}", own)]
        singles.append(image(f"seed/{seed}", layers))
    return singles[0] if len(singles) == 1 else index(singles)


@pytest.mark.parametrize("mount", [False, True])
@pytest.mark.parametrize("seed", range(10))
async def test_time_left_is_right_from_the_first_quarter_on(seed: int, *, mount: bool) -> None:
    """Within 30 %, at a steady rate, whatever images share and whatever the destination has before."""
    clock, dice = FakeClock(), random.Random(seed)
    async with world(clock=clock, mount=mount, chunk_bytes=512) as w:
        there, tags = dice.randrange(4), dice.randrange(6, 20)
        for number in range(tags):
            repository, built = dice.choice(REPOSITORIES), _random_image(dice)
            w.put(repository, f"v{number}", built)
            if number < there:
                load(w.left.store, repository, None, built)
        progress = Progress(clock.monotonic)
        steady = Steady(clock, 2_000.0, progress)
        w.events.subscribe(progress, to=FOLLOWED)
        w.events.subscribe(steady)
        began = clock.monotonic()
        await w.sync(rule())
        whole = clock.monotonic() - began
        late = [(at - began, said) for at, said in steady.said if at - began >= whole / 4]
        assert len(late) > 20
        for at, said in late:
            left = whole - at
            if left > whole / 50:
                assert said == pytest.approx(left, rel=0.3), f"{at:.1f} of {whole:.1f} s"
        ended = progress.destination("left")
        assert ended.bytes_moved == ended.bytes_planned
        assert ended.tags_done == ended.tags_planned == tags


async def test_tags_that_end_without_a_copy_are_planned_too() -> None:
    """Else a run would be through, by its numbers, before the first byte moved."""
    one, two = rule("one", repositories=["a/*"]), rule("two", repositories=["b/*"])
    flat = (
        replace(one, rename_repository=Rename(strip="a/")),
        replace(two, rename_repository=Rename(strip="b/")),
    )
    async with world(clock=FakeClock(), chunk_bytes=512) as w:
        w.put("a/app", "v1")
        await w.sync(flat[0])
        w.put("b/app", "v1", image("another"))
        w.put("a/app", "v2")
        progress = Progress(w.clock.monotonic)
        seen: list[DestinationProgress] = []
        w.events.subscribe(progress, to=FOLLOWED)
        w.events.subscribe(lambda _: seen.append(progress.destination("left")))
        totals = [each.destinations[0].totals.tags for each in await w.sync(*flat)]
        assert all(each.tags_done <= each.tags_planned for each in seen)
        ended = progress.destination("left")
        assert (ended.tags_planned, ended.tags_done, ended.tags_failed) == (2, 2, 1)
        assert [(each.copied, each.failed) for each in totals] == [(1, 0), (0, 1)]


async def test_what_an_image_without_the_platforms_holds_is_planned_too() -> None:
    arm = replace(rule(), platforms=Platforms((parse_platform("linux/arm64"),), "sparse", "hold"))
    async with world(clock=FakeClock()) as w:
        for tag in ("v1", "v2"):
            w.put("app", tag)
        progress = Progress(w.clock.monotonic)
        w.events.subscribe(progress, to=FOLLOWED)
        assert (await w.sync_one(arm)).totals.tags.held == 2
        at = progress.destination("left")
        assert (at.tags_planned, at.tags_done, at.tags_failed) == (2, 2, 0)


async def test_tags_that_the_source_cannot_resolve_count_as_failed_at_once() -> None:
    async with world(clock=FakeClock()) as w:
        for tag in ("v1", "v2"):
            w.put("app", tag)
        w.source.fail("resolve", Unavailable("source", "resolve tag", "no answer"), times=1)
        progress = Progress(w.clock.monotonic)
        w.events.subscribe(progress, to=FOLLOWED)
        failed = (await w.sync_one()).totals.tags.failed
        at = progress.destination("left")
        assert (at.tags_planned, at.tags_done, at.tags_failed) == (2, 2, failed)
        assert failed > 0


async def test_what_is_postponed_or_not_listed_is_counted_at_once() -> None:
    async with world(clock=FakeClock()) as w:
        for tag in ("v1", "v2"):
            w.put("app", tag)
        w.put("other", "v1")
        w.left.fail("write_manifest", Rejected("left", "write manifest", "too large"), subject="v1", times=9)
        assert (await w.sync_one(unattended=True)).totals.tags.failed > 0
        w.source.fail("tags", Unavailable("source", "list tags", "no answer"), repository="other", times=9)
        progress = Progress(w.clock.monotonic)
        unlisted: list[int] = []
        w.events.subscribe(progress, to=FOLLOWED)
        w.events.subscribe(lambda _: unlisted.extend(each.unlisted for each in progress.scans()))
        failed = (await w.sync_one(unattended=True)).totals.tags.failed
        at = progress.destination("left")
        assert (at.tags_planned, at.tags_failed, at.tags_postponed) == (0, 0, failed)
        assert failed > 0
        assert max(unlisted) == 1
        assert progress.unlisted() == {"source": 1}
        said = fields(progress)
        assert (said["postponed"], said["unlisted"]) == (failed, 1)


def test_lines_of_a_log_say_the_same_numbers() -> None:
    seen = Watched().image("v1", (A, 4_000_000)).moves(A, 1_000_000)
    seen.clock.advance(1)
    assert fields(seen.progress) == {
        "scanned": None,
        "tags": "0/1",
        "failed": None,
        "postponed": None,
        "unlisted": None,
        "moved": "1.0 MB/4.0 MB",
        "rate": "1.0 MB/s",
        "left": "3.0 s",
        "waits": None,
    }
