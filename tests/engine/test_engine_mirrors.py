"""Mirrors: nearer, by digest only, never believed."""

from __future__ import annotations

from pathlib import Path

import pytest

from replicator.demo.images import BuiltImage, image, index, load
from replicator.errors import AuthFailed, Denied, Unavailable
from tests.engine.world import World, big, rule, world

MIRRORED = rule(mirrors=["near"])


def _put(w: World, built: BuiltImage | None = None, *mirrors: str) -> BuiltImage:
    put = w.put("app", "v1", built or big("large"))
    for mirror in mirrors or ("near",):
        load(w.sites[mirror].store, "app", "v1", put)
    return put


async def test_content_comes_from_the_mirror_and_the_tag_from_the_source() -> None:
    async with world(mirrors=["near"]) as w:
        built = _put(w, index([big("x"), big("y")]))
        load(w.sites["near"].store, "app", "v1", image("the mirror is behind"))
        assert (await w.sync_one(MIRRORED)).outcome == "ok"
        assert w.tags()["app"]["v1"] == built.digest
        assert w.source.count("open_blob") == w.source.count("read_manifest") == 0
        asked = {one.method for one in w.sites["near"].operations}
        assert asked == {"open_blob", "read_manifest"}
        assert all(
            one.subject.startswith("sha256:") for one in w.sites["near"].operations
        )  # never what a tag is


async def test_what_the_mirror_lacks_comes_from_the_source() -> None:
    async with world(mirrors=["near"]) as w:
        built = w.put("app", "v1", big("large"))
        assert (await w.sync_one(MIRRORED)).outcome == "ok"
        assert w.tags()["app"]["v1"] == built.digest


async def test_lying_mirror_is_left_for_the_source() -> None:
    async with world(mirrors=["near"]) as w:
        built = _put(w)
        for digest in (built.digest, *built.blobs):
            w.sites["near"].corrupt(digest, times=99)
        result = await w.sync_one(MIRRORED)
        assert (result.outcome, result.failures) == ("ok", [])
        assert w.tags()["app"]["v1"] == built.digest


async def test_several_lying_mirrors_do_not_keep_it_from_the_source(tmp_path: Path) -> None:
    mirrors = ["near", "nearer", "nearest"]
    both = ("left", "right")
    async with world(tmp_path, mirrors=mirrors, destinations=both) as w:
        built = _put(w, None, *mirrors)
        for mirror in mirrors:
            w.sites[mirror].corrupt(built.manifest.blobs[1].digest, times=99)
        results = (await w.sync(rule(mirrors=mirrors, destinations=both)))[0].destinations
        assert [one.outcome for one in results] == ["ok", "ok"]
        assert w.tags("left") == w.tags("right") == w.tags("source")


@pytest.mark.parametrize("at", [None, 0, 100_000])
async def test_mirror_that_breaks_in_the_middle_is_left_where_it_broke(at: int | None) -> None:
    async with world(mirrors=["near"], chunk_bytes=50_000) as w:
        built = _put(w)
        digest = built.manifest.blobs[1].digest
        w.sites["near"].fail("open_blob", Unavailable("near", "read blob", "reset"), subject=digest, at=at)
        assert (await w.sync_one(MIRRORED)).outcome == "ok"
        [offset] = [one.offset for one in w.source.operations if one.subject == digest]
        assert offset == (at or 0)


async def test_mirror_that_lies_and_then_breaks_does_not_spoil_the_sources_reading() -> None:
    async with world(mirrors=["near"], chunk_bytes=50_000) as w:
        built = _put(w)
        digest = built.manifest.blobs[1].digest
        w.sites["near"].corrupt(digest, times=99)
        w.sites["near"].fail(
            "open_blob", Denied("near", "read blob", "no"), subject=digest, after=1, at=100_000
        )
        assert (await w.sync_one(MIRRORED)).outcome == "ok"
        assert w.tags()["app"]["v1"] == built.digest


async def test_dead_mirror_is_left_alone_after_a_while_and_that_is_said() -> None:
    async with world(mirrors=["near"]) as w:
        for number in range(200):
            w.put("app", f"v{number}", image(f"{number}", layers=1))
        w.sites["near"].fail("read_manifest", Unavailable("near", "read manifest", "no answer"), times=999)
        w.sites["near"].fail("open_blob", Unavailable("near", "read blob", "no answer"), times=999)
        result = await w.sync_one(MIRRORED)
        assert (result.outcome, result.totals.tags.copied) == ("ok", 200)
        [warning] = result.warnings
        assert "mirror near is not asked any more" in warning
        assert w.sites["near"].count("read_manifest") < 150
        assert w.sites["near"].count("open_blob") < 150


async def test_mirror_that_refuses_us_is_not_asked_again() -> None:
    async with world(mirrors=["near"]) as w:
        _put(w)
        w.sites["near"].fail("read_manifest", AuthFailed("near", "read manifest", "401"), times=999)
        assert (await w.sync_one(MIRRORED)).outcome == "ok"
        assert w.sites["near"].count("open_blob") == 0


async def test_failure_of_mirror_and_source_is_told_as_the_sources() -> None:
    async with world(mirrors=["near"]) as w:
        built = _put(w)
        for site in ("near", "source"):
            denied = Denied(site, "read blob", "no", repository="app")
            w.sites[site].fail("open_blob", denied, subject=built.manifest.blobs[1].digest, times=99)
        result = await w.sync_one(MIRRORED)
        assert [one.site for one in result.failures] == ["source"]
