"""Random worlds: image graphs that share, faults wherever they like, sites of any width.

At every moment no tag dangles; nothing is uploaded twice to one repository, nor read twice from the source where nothing
fails, however the calls interleave and whether or not mounts are refused; once the faults have ended, one clean run brings
everything in step, and the next one finds nothing to do.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replicator.demo.images import AMD64, ARM64, BuiltImage, Layer, image, index, layer
from replicator.engine import queue as copies
from replicator.engine.context import RunScope
from replicator.errors import (
    Corrupt,
    Denied,
    MissingReference,
    NotFound,
    Rejected,
    SiteError,
    Throttled,
    Unavailable,
)
from tests.engine.world import World, rule, world
from tests.fakes.clock import FakeClock
from tests.fakes.memory import MemorySite, Method, Operation

LAYERS: Sequence[Layer] = [
    layer(f"layer/{number}", size) for number, size in enumerate((900, 70_000, 150_000))
]
DAY = 24 * 3600.0
REPOSITORIES = ("a", "b/c", "d")
TAGS = ("v1", "v2", "latest")
SPOOLED_BYTES = 1 << 20
"""More than all blobs of a world."""
METHODS: Sequence[Method] = (
    "repositories",
    "tags",
    "resolve",
    "read_manifest",
    "has_blob",
    "open_blob",
    "mount",
    "write_blob",
    "write_manifest",
)
ERRORS: Sequence[type[SiteError]] = (
    Unavailable,
    Throttled,
    Denied,
    NotFound,
    Rejected,
    Corrupt,
    MissingReference,
)


@dataclass(frozen=True)
class Fault:
    """One fault, at the source or a destination."""

    at_source: bool
    method: Method
    error: type[SiteError]
    after: int
    times: int
    late: bool
    at: int | None


@dataclass(frozen=True)
class Drawn:
    """A world as drawn. `tags` maps (repository, tag) to an image."""

    tags: dict[tuple[str, str], BuiltImage]
    faults: list[Fault]
    destinations: int
    mount: bool
    refuses_mounts: bool
    refuses: bool
    tells: bool
    spool_bytes: int
    copies_at_once: int
    page: int
    cancel_after: int | None
    pace: int | None


def _tags() -> st.SearchStrategy[dict[tuple[str, str], BuiltImage]]:
    """Tags on a few images and on indexes of them, so that a tag's image often is a child of another one's."""
    single = st.builds(
        lambda seed, picked, platform: image(
            f"seed/{seed}", [LAYERS[number] for number in picked], platform=platform
        ),
        st.integers(0, 4),
        st.lists(st.integers(0, len(LAYERS) - 1), unique=True, max_size=3),
        st.sampled_from([AMD64, ARM64]),
    )
    return st.lists(single, min_size=1, max_size=4).flatmap(
        lambda few: st.dictionaries(
            st.tuples(st.sampled_from(REPOSITORIES), st.sampled_from(TAGS)),
            _images(st.sampled_from(few)),
            min_size=1,
            max_size=6,
        )
    )


def _images(single: st.SearchStrategy[BuiltImage]) -> st.SearchStrategy[BuiltImage]:
    return st.recursive(
        single,
        lambda below: st.builds(index, st.lists(below, min_size=1, max_size=3)),
        max_leaves=4,
    ).filter(lambda built: built.platform is not None or _depth(built) <= 4)


def _depth(built: BuiltImage) -> int:
    return 1 + max((_depth(child) for child in built.children), default=0)


def _faults() -> st.SearchStrategy[Fault]:
    return st.builds(
        Fault,
        at_source=st.booleans(),
        method=st.sampled_from(METHODS),
        error=st.sampled_from(ERRORS),
        after=st.integers(0, 6),
        times=st.integers(1, 4),
        late=st.booleans(),
        at=st.none() | st.integers(0, 150_000),
    ).filter(lambda fault: fault.error is not MissingReference or fault.method == "write_manifest")


WORLDS = st.builds(
    Drawn,
    tags=_tags(),
    faults=st.lists(_faults(), max_size=5),
    destinations=st.integers(1, 3),
    mount=st.booleans(),
    refuses_mounts=st.booleans(),
    refuses=st.booleans(),
    tells=st.booleans(),
    spool_bytes=st.sampled_from([0, 100_000, 1 << 30]),
    copies_at_once=st.sampled_from([1, 2, 32]),
    page=st.integers(1, 3),
    cancel_after=st.none() | st.integers(1, 300),
    pace=st.none() | st.integers(0, 2**16),
)


def _break(w: World, fault: Fault) -> None:
    names = [name for name in w.sites if (name == "source") == fault.at_source]

    def make(operation: Operation) -> SiteError:
        site = next(site for site in w.sites.values() if operation in site.operations)
        return fault.error(
            site.name, operation.method, "a drawn fault", repository=operation.repository or None
        )

    at = fault.at if fault.method in {"open_blob", "write_blob"} and not fault.late else None
    for name in names:
        w.sites[name].fail(fault.method, make, times=fault.times, after=fault.after, late=fault.late, at=at)


def _uploaded_twice(w: World) -> list[tuple[str, str, str]]:
    """Blobs that went whole into one repository of a destination more than once."""
    return [
        key
        for name, site in w.sites.items()
        if name != "source"
        for key, count in Counter(
            (name, one.repository, one.subject)
            for one in site.operations
            if one.method == "write_blob" and one.outcome == "done"
        ).items()
        if count > 1
    ]


def _read_twice(w: World) -> list[str]:
    """Blobs that were read from the source more than once."""
    read = Counter(one.subject for one in w.source.operations if one.method == "open_blob")
    return [digest for digest, count in read.items() if count > 1]


async def _live(drawn: Drawn, folder: Path) -> None:
    destinations = ("left", "right", "third")[: drawn.destinations]
    async with world(
        folder,
        destinations=destinations,
        mount=drawn.mount,
        refuses_dangling=drawn.refuses,
        tells_digest=drawn.tells,
        spool_bytes=drawn.spool_bytes,
        chunk_bytes=40_000,
    ) as w:
        for (repository, tag), built in drawn.tags.items():
            w.put(repository, tag, built)
        for site in w.sites.values():
            site.page, site.refuses_mounts = drawn.page, drawn.refuses_mounts
            if drawn.pace is not None:
                site.turns = partial(random.Random(drawn.pace).randint, 1, 12)
        one = rule(destinations=destinations)
        for fault in drawn.faults:
            _break(w, fault)
        await _troubled_run(w, one, drawn)
        assert w.idle
        for site in w.sites.values():
            site._faults.clear()
        results = (await w.sync(one))[0].destinations
        assert [(result.outcome, result.failures) for result in results] == [("ok", [])] * len(destinations)
        for name in destinations:
            assert w.tags(name) == w.tags("source")
            assert w.sites[name].store.dangling() == []
        w.clear_log()
        again = (await w.sync(one))[0].destinations
        assert [result.totals.tags.unchanged for result in again] == [len(drawn.tags)] * len(destinations)
        assert all(one.method == "tags" for name in destinations for one in w.sites[name].operations)


async def _troubled_run(w: World, one: object, drawn: Drawn) -> None:
    run = asyncio.create_task(w.sync(one))  # type: ignore[arg-type]
    if drawn.cancel_after is not None:
        for _ in range(drawn.cancel_after):
            await asyncio.sleep(0)
        run.cancel()
    try:
        results = (await run)[0].destinations
    except asyncio.CancelledError:
        return
    # Done, and the answer lost; or lost by the destination, as it says: then it may be done again.
    again = any(
        fault.late
        or fault.error is MissingReference
        or (fault.error is NotFound and fault.method == "resolve" and not fault.at_source)
        for fault in drawn.faults
    )
    # A source that says there is no such repository or tag has answered: that is no failure.
    denied = any(fault.at_source and fault.error is NotFound for fault in drawn.faults)
    if not again:
        assert _uploaded_twice(w) == []
    if not drawn.faults and (drawn.destinations == 1 or drawn.spool_bytes > SPOOLED_BYTES):
        assert _read_twice(w) == []
    for result in results:
        tags = result.totals.tags
        in_step = w.tags(result.destination)
        if result.outcome == "ok":
            assert denied or in_step == w.tags("source")
            assert denied or tags.copied + tags.unchanged == len(drawn.tags)
        else:
            assert result.failures
        assert tags.copied <= sum(len(found) for found in in_step.values())


def _run(drawn: Drawn, monkeypatch: pytest.MonkeyPatch) -> None:
    random.seed(0)
    monkeypatch.setattr(copies, "COPIES_AT_ONCE", drawn.copies_at_once)
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_live(drawn, Path(folder)))


QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]


@settings(max_examples=150, deadline=None, suppress_health_check=QUIET)
@given(drawn=WORLDS)
def test_whatever_happens_no_tag_dangles_and_the_next_run_ends_in_step(
    drawn: Drawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    _run(drawn, monkeypatch)


@pytest.mark.soak
@pytest.mark.timeout(1_200)
@settings(max_examples=1_500, deadline=None, suppress_health_check=QUIET)
@given(drawn=WORLDS)
def test_whatever_happens_in_many_worlds(drawn: Drawn, monkeypatch: pytest.MonkeyPatch) -> None:
    _run(drawn, monkeypatch)


@settings(max_examples=20, deadline=None, suppress_health_check=QUIET)
@given(
    tags=_tags(),
    seed=st.randoms(use_true_random=False),
)
def test_order_of_listings_does_not_matter(
    tags: dict[tuple[str, str], BuiltImage], seed: random.Random
) -> None:
    async def run() -> None:
        async with world() as w:
            shuffled = list(tags.items())
            seed.shuffle(shuffled)
            for (repository, tag), built in shuffled:
                w.put(repository, tag, built)
            planned = await w.plan_one()
            done = await w.sync_one()
            assert done.outcome == "ok"
            assert w.tags() == w.tags("source")
            assert {(a.target, a.tag, a.digest) for a in planned.actions} == {
                (a.target, a.tag, a.digest) for a in done.actions
            }
            assert (await w.plan_one()).actions == []

    asyncio.run(run())


@dataclass(frozen=True)
class Decay:
    """What becomes of a world that was in step: what destinations lose, clocks that jump, events while the source is dark."""

    tags: dict[tuple[str, str], BuiltImage]
    losses: list[tuple[int, int]]
    """Destination and content, by number."""
    jumps: list[float]
    moved: list[tuple[str, str]]
    dark_calls: int
    destinations: int


DECAYS = st.builds(
    Decay,
    tags=_tags(),
    losses=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 40)), max_size=4),
    jumps=st.lists(
        st.sampled_from([-3600.0, 30.0, 40 * DAY, -40 * DAY, 3650 * DAY, -3650 * DAY]), max_size=3
    ),
    moved=st.lists(st.tuples(st.sampled_from(REPOSITORIES), st.sampled_from(TAGS)), max_size=2),
    dark_calls=st.integers(0, 6),
    destinations=st.integers(1, 2),
)


def _lose(site: MemorySite, number: int) -> None:
    """Some manifest or blob is gone, without anybody having been told."""
    held = [
        (content, digest)
        for _, content in sorted(site.store.repositories.items())
        for digest in sorted({*content.manifests, *content.blobs})
    ]
    if not held:
        return
    content, digest = held[number % len(held)]
    content.manifests.pop(digest, None)
    content.blobs.discard(digest)


async def _decay(drawn: Decay) -> None:
    clock = FakeClock()
    names = ("left", "right")[: drawn.destinations]
    one = rule(destinations=names)
    async with world(destinations=names, clock=clock) as w:
        for (repository, tag), built in drawn.tags.items():
            w.put(repository, tag, built)
        assert {each.outcome for each in (await w.sync(one))[0].destinations} == {"ok"}
        for destination, number in drawn.losses:
            _lose(w.sites[names[destination % len(names)]], number)
        for jump in drawn.jumps:
            clock.advance(jump)
            await w.sync(one, unattended=True)
        for repository, tag in drawn.moved:
            w.put(repository, tag, image(f"moved/{repository}/{tag}"))
            down = Unavailable("source", "resolve tag", "down", repository=repository)
            w.source.fail("resolve", down, times=drawn.dark_calls)
            await w.engine().sync([one], scope=RunScope({repository: frozenset({tag})}), unattended=True)
        w.source._faults.clear()
        for _ in range(9):  # a week, and what the retries take
            clock.advance(DAY)
            await w.sync(one, unattended=True)
        results = (await w.sync(one, unattended=True))[0].destinations
        assert {result.outcome for result in results} == {"ok"}
        for name in names:
            assert w.tags(name) == w.tags("source")
            assert w.sites[name].store.dangling() == []
        for standing in await w.state.standings(["rule"]):
            assert (standing.pending, standing.unknown) == (0, 0)
            assert standing.in_step == sum(len(tags) for tags in w.tags("source").values())
        for seen in w.dangling:  # that tags dangled for a while was our doing
            seen.clear()


@settings(max_examples=30, deadline=None, suppress_health_check=QUIET)
@given(drawn=DECAYS)
def test_what_is_lost_at_a_destination_is_there_again_within_a_week(drawn: Decay) -> None:
    asyncio.run(_decay(drawn))


@pytest.mark.soak
@pytest.mark.timeout(1_200)
@settings(max_examples=500, deadline=None, suppress_health_check=QUIET)
@given(drawn=DECAYS)
def test_what_is_lost_in_many_worlds(drawn: Decay) -> None:
    asyncio.run(_decay(drawn))
