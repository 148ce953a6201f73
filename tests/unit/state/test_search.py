"""The index of images: what a query finds, and that it is what a plain reading of the query would find."""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.demo.images import AMD64, ARM64, image, index, load
from replicator.discovery.fresh import _names_match, facts_match
from replicator.discovery.query import parse_query
from replicator.model.digest import Digest, digest_of, encoded
from replicator.ports import (
    GoneAtDestination,
    ImageSeen,
    Missing,
    Pending,
    Placed,
    RunRow,
    TagBelief,
    Unit,
    UnitSeen,
)
from replicator.ports.search import ImageFacts, Query
from replicator.runs.indexing import index_missing
from replicator.state.images import MOVES_KEPT
from replicator.state.place import Place
from replicator.state.store import StoredState, open_state
from tests.fakes.clock import FakeClock
from tests.fakes.memory import MemorySite

NOW = 1_700_000_000.0


@pytest.fixture(params=["sqlite", "postgresql"])
async def state(request: pytest.FixtureRequest, places: Callable[[str], Place]) -> AsyncIterator[StoredState]:
    opened = await open_state(places(request.param), clock=FakeClock(NOW))
    yield opened
    await opened.aclose()


def placed(repository: str, tag: str, digest: Digest, *, destination: str = "fra", at: float = NOW) -> Placed:
    return Placed("rule", destination, TagBelief(tag, digest, digest, "rule", at, at), repository)


def facts(seed: str, **more: object) -> ImageFacts:
    return ImageFacts(digest_of(seed.encode()), **more)  # type: ignore[arg-type]


APP = facts(
    "app",
    created=NOW - 86_400,
    platforms=("linux/amd64", "linux/arm64/v8"),
    labels={"org.opencontainers.image.description": "Serves invoices, quickly", "team": "billing"},
    annotations={"org.opencontainers.image.revision": "c0ffee", "team": "payments"},
    layers=((digest_of(b"layer"), 5), (digest_of(b"own"), 7)),
)
CHART = facts("chart", artifact_type="application/vnd.cncf.helm.config.v1+json")


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("app", ["team/app:v1"]),
        ("team v1", ["team/app:v1"]),
        ("invoic", ["team/app:v1"]),
        ("invoices quickly", ["team/app:v1"]),
        ("voices", []),
        ("src/app", ["team/app:v1"]),
        ("repo:src/*", ["team/app:v1"]),
        ("repo:team/*", ["team/app:v1", "team/chart:1.0"]),
        ("repo:team/* tag:v*", ["team/app:v1"]),
        (f"digest:{encoded(APP.digest)[:8]}", ["team/app:v1"]),
        (APP.digest, ["team/app:v1"]),
        (f"layer:{encoded(digest_of(b'layer'))[:9]}", ["team/app:v1"]),
        ("platform:linux/arm64", ["team/app:v1"]),
        ("platform:linux/arm", []),
        ("label:team", ["team/app:v1"]),
        ("label:team=bill*", ["team/app:v1"]),
        ("label:team=other", []),
        ("label:team=payments", []),
        ("annotation:team=pay*", ["team/app:v1"]),
        ("annotation:team=billing", []),
        ("annotation:org.opencontainers.image.revision", ["team/app:v1"]),
        ("coffee", []),
        ("c0ff", ["team/app:v1"]),
        ("app:v1", ["team/app:v1"]),
        ("src/app:v1", ["team/app:v1"]),
        ("p:1.0", []),
        ("chart:1", ["team/chart:1.0"]),
        ('"serves invoices"', ["team/app:v1"]),
        ("type:*helm*", ["team/chart:1.0"]),
        ("before:2023-11-14", ["team/app:v1"]),
        ("after:2023-11-14", []),
        ("site:fra app", ["team/app:v1"]),
        ("site:sin app", []),
    ],
)
async def test_each_condition(state: StoredState, query: str, found: list[str]) -> None:
    state.record(placed("team/app", "v1", APP.digest))
    state.record(placed("team/chart", "1.0", CHART.digest))
    state.record(ImageSeen(APP))
    state.record(ImageSeen(CHART))
    state.record(UnitSeen(Unit("rule", "fra", "src/app", "team/app", NOW, NOW, 1, asked_at=NOW)))
    holdings = await state.search(parse_query([query]), 10)
    assert [f"{each.repository}:{each.tag}" for each in holdings] == found
    assert all(each.sources == ("src/app",) for each in holdings if each.repository == "team/app")
    assert (await state.facts([APP.digest]))[APP.digest] == ImageFacts(
        APP.digest, APP.created, "", APP.platforms, APP.labels, tuple(sorted(APP.layers)), APP.annotations
    )


async def test_what_a_destination_lacks_is_found_too(state: StoredState) -> None:
    pending = Pending("team/app", "v2", APP.digest, NOW - 60, 1, "refused", source="src/app", asked_at=NOW)
    state.record(Missing("rule", "fra", pending))
    state.record(placed("team/app", "v2", APP.digest, destination="sin"))
    assert [
        (each.destination, each.digest, each.error) for each in await state.search(Query(tag="v2"), 10)
    ] == [
        ("fra", None, "refused"),
        ("sin", APP.digest, ""),
    ]


async def test_moves_of_a_tag_are_kept_in_order_and_in_bounds(state: StoredState) -> None:
    digests = [digest_of(f"{number}".encode()) for number in range(MOVES_KEPT + 5)]
    for number, digest in enumerate(digests):
        for _ in range(2):  # confirmed again: not a move
            state.record(placed("team/app", "latest", digest, at=NOW + number))
            await state.flush()
    moves = await state.moves("fra", "team/app", "latest")
    assert [move.digest for move in moves] == digests[::-1][:MOVES_KEPT]


async def test_images_that_no_tag_names_are_forgotten(tmp_path: Path) -> None:
    clock = FakeClock(NOW)
    state = await open_state(tmp_path / "state.db", clock=clock)
    state.record(placed("team/app", "v1", APP.digest))
    state.record(ImageSeen(APP))
    await state.flush()
    state.record(GoneAtDestination("fra", "team/app", ["v1"], NOW + 1))
    await state.flush()
    await state.aclose()
    clock.advance(2 * 86_400)
    state = await open_state(tmp_path / "state.db", clock=clock)
    now = clock.now()
    await state.close_run(RunRow("rule", "fra", now, now, "ok", True, 0, 0, 0))
    assert not await state.facts([APP.digest])
    state.record(placed("team/app", "v1", APP.digest, at=clock.now()))
    assert not await state.search(Query(words=("invoices",)), 10)
    await state.aclose()


_WORD = st.sampled_from(["app", "api", "web", "v1", "v2", "arm", "p:v", "/app:v1", "b:1.0", ":v1"])
_IMAGES = [
    ImageFacts(
        digest_of(f"i{number}".encode()),
        NOW - number * 86_400 if number % 3 else None,
        "application/x" if number % 4 == 0 else "",
        ("linux/amd64", "linux/arm/v7") if number % 2 else ("linux/arm64",),
        {"team": f"t{number % 3}"} if number % 5 else {},
        tuple((digest_of(f"l{layer}".encode()), 1) for layer in range(number % 4)),
        {"team": f"t{number % 2}"} if number % 3 else {},
    )
    for number in range(8)
]
_TAGS = st.dictionaries(
    st.tuples(st.sampled_from(["team/app", "team/api", "web"]), st.sampled_from(["v1", "v2", "1.0"])),
    st.integers(0, 7),
    max_size=6,
)
_QUERIES = st.builds(
    Query,
    words=st.lists(_WORD, max_size=2).map(tuple),
    repository=st.sampled_from(["", "team/*", "w?b", "team/app"]),
    tag=st.sampled_from(["", "v*", "1.0"]),
    digest=st.sampled_from(["", *(encoded(image.digest)[:5] for image in _IMAGES)]),
    layer=st.sampled_from(["", "abcd", *(encoded(digest_of(f"l{n}".encode()))[:7] for n in range(3))]),
    platform=st.sampled_from(["", "linux/arm", "linux/arm64", "linux/arm/v7"]),
    labels=st.sampled_from([(), (("team", "*"),), (("team", "t1"),), (("none", "*"),)]),
    annotations=st.sampled_from([(), (("team", "*"),), (("team", "t1"),), (('a"b', "*"),)]),
    artifact_type=st.sampled_from(["", "application/*"]),
    before=st.sampled_from([None, NOW - 3 * 86_400]),
    after=st.sampled_from([None, NOW - 4 * 86_400]),
)


@settings(max_examples=60, deadline=None)
@given(_TAGS, st.lists(_QUERIES, min_size=1, max_size=5))
def test_the_database_finds_what_a_plain_reading_of_the_query_finds(
    tags: dict[tuple[str, str], int], queries: list[Query]
) -> None:
    async def check() -> None:
        with tempfile.TemporaryDirectory() as folder:
            state = await open_state(Path(folder, "state.db"), clock=FakeClock(NOW))
            for (repository, tag), number in tags.items():
                state.record(placed(repository, tag, _IMAGES[number].digest))
                state.record(ImageSeen(_IMAGES[number]))
            for query in queries:
                expected = {
                    (repository, tag)
                    for (repository, tag), number in tags.items()
                    if _names_match(query, repository, repository, tag)
                    and encoded(_IMAGES[number].digest).startswith(query.digest)
                    and facts_match(query, _IMAGES[number])
                }
                found = await state.search(query, 100)
                assert {(each.repository, each.tag) for each in found} == expected
            await state.aclose()

    asyncio.run(check())


async def test_a_full_index_reads_each_image_once_and_is_not_held_up_by_what_cannot_be_read(
    state: StoredState,
) -> None:
    site, broken = MemorySite("fra"), MemorySite("sin")
    built = [image(name) for name in "abc"]
    for number, each in enumerate(built):
        load(site.store, "app", f"v{number}", each)
        for tag in (f"v{number}", f"w{number}"):
            state.record(placed("app", tag, each.digest))
            state.record(placed("app", tag, each.digest, destination="sin"))
    unreadable: set[tuple[str, Digest]] = set()
    sites = {"fra": site, "sin": broken}
    while await index_missing(state, state, sites, 2, unreadable):
        pass
    assert set(await state.facts([each.digest for each in built])) == {each.digest for each in built}
    assert {place for place, _ in unreadable} <= {"sin"}
    reads = [each for each in site.operations if "manifest" in str(each)]
    assert len(reads) == 3


async def test_a_full_index_knows_of_a_sparse_index_what_is_there(state: StoredState) -> None:
    site = MemorySite("fra")
    both = index([image("one", platform=AMD64), image("other", platform=ARM64)])
    none = index([image("a", platform=AMD64), image("b", platform=ARM64)])
    for tag, built, gone in (("v1", both, 1), ("v2", none, 2)):
        load(site.store, "app", tag, built)
        for child in built.children[-gone:]:
            del site.store.repositories["app"].manifests[child.digest]
        state.record(placed("app", tag, built.digest))
    unreadable: set[tuple[str, Digest]] = set()
    assert await index_missing(state, state, {"fra": site}, 2, unreadable) == 2
    assert unreadable == {("fra", none.digest)}
    facts = await state.facts([both.digest, none.digest])
    assert set(facts) == {both.digest}
    assert facts[both.digest].platforms == ("linux/amd64",)
    assert facts[both.digest].labels == {"seed": "one"}


async def test_destinations_stand_side_by_side_whichever_of_them_matches(state: StoredState) -> None:
    state.record(placed("team/app", "v1", APP.digest))
    state.record(placed("team/app", "v1", CHART.digest, destination="sin"))
    state.record(ImageSeen(APP))
    for query in (f"digest:{encoded(APP.digest)[:9]}", "site:fra", "label:team"):
        found = await state.search(parse_query([query]), 10)
        assert [(each.destination, each.digest) for each in found] == [
            ("fra", APP.digest),
            ("sin", CHART.digest),
        ]


async def test_what_a_site_lacks_is_found_among_more_tags_than_the_limit(state: StoredState) -> None:
    for number in range(20):
        for destination in ("fra", "sin"):
            state.record(placed("team/app", f"v{number:02}", APP.digest, destination=destination))
    state.record(placed("team/app", "x", APP.digest))
    state.record(placed("team/app", "y", APP.digest))
    state.record(placed("team/app", "y", CHART.digest, destination="sin"))
    state.record(
        placed("team/other", "v00", CHART.digest, destination="sin")
    )  # the tag of another repository
    found = await state.search(Query(missing_at="sin"), 5)
    assert {(each.tag, each.destination) for each in found} == {("x", "fra"), ("y", "fra")} | {("y", "sin")}
    assert {each.tag for each in await state.search(Query(behind=True), 5)} == {"y"}
    assert {each.tag for each in await state.search(Query(), 3)} == {"v00", "v01", "v02"}
    assert len(await state.search(Query(), 3)) == 6


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nginx:1.25", ("nginx:1.25",)),
        ("registry:2 kube-state-metrics:v2.1", ("registry:2", "kube-state-metrics:v2.1")),
        ("app:latest", ("app:latest",)),
        ("localhost:5000/app:main", ("localhost:5000/app:main",)),
        ("https://github.com/team/app", ("https://github.com/team/app",)),
        ('"colour:red" "tag:x y"', ("colour:red", "tag:x y")),
    ],
)
def test_words_that_have_a_colon_and_are_no_conditions(text: str, words: tuple[str, ...]) -> None:
    assert parse_query([text]) == Query(words=words)


def test_quotes_keep_spaces_and_a_name_may_stand_before_a_digest() -> None:
    assert parse_query(['label:title="my app"']).labels == (("title", "my app"),)
    assert parse_query(["team/app@sha256:abcdef"]) == Query(words=("team/app",), digest="abcdef")


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("created-after:2026-01-01", "did you mean after"),
        ("labels:x=1", "did you mean label"),
        ("arch:arm64", "did you mean platform"),
        ("missing:fra", "--missing-at"),
        ("busybox:musl", "in quotes: '\"busybox:musl\"'"),
        ("tag:a tag:b", "twice"),
        ('label:"x', "quotation mark"),
        ("a\x00b", "printable"),
    ],
)
def test_a_condition_that_is_not_known_is_no_word(text: str, advice: str) -> None:
    with pytest.raises(ValueError, match=re.escape(advice)):
        parse_query([text])


@pytest.mark.parametrize("text", ["colour:red", "digest:xyz", "before:soon", "platform:arm64", "tag:"])
def test_a_query_that_is_wrong_says_what_would_be_right(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|known are"):
        parse_query([text])
