"""Invariants 5 to 7: a failure stays where it happened, success is not claimed, nothing is deleted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from replicator.demo.images import image, layer, load
from replicator.engine.context import RunListener
from replicator.errors import AuthFailed, Denied, NotFound, Rejected, SiteError, Unavailable
from replicator.events import Failed
from replicator.policy.pattern import parse_tag_pattern
from replicator.policy.rule import TagSelection
from replicator.state.memory import MemoryState
from tests.engine.world import only, rule, settled, until, world
from tests.fakes.memory import MemorySite, Operation

DOWN = Unavailable("left", "list tags", "no answer")


def _breaks_off(site: MemorySite, name: str, error: SiteError) -> None:
    """The site's listing of that repository breaks off after its first page."""
    make = site.repository

    def repository(asked: str) -> object:
        made = make(asked)
        if asked == name:
            whole = made.tags

            async def tags() -> AsyncIterator[Sequence[str]]:
                async for page in whole():
                    yield page
                    raise error

            made.tags = tags  # type: ignore[method-assign]
        return made

    site.repository = repository  # type: ignore[assignment]


async def test_bad_blob_fails_its_tag_and_leaves_the_neighbours() -> None:
    async with world() as w:
        broken = w.put("app", "broken")
        w.put("app", "fine")
        w.put("other", "fine")
        bad = broken.manifest.blobs[1].digest
        refused = Denied("source", "read blob", "forbidden", repository="app")
        w.source.fail("open_blob", refused, subject=bad, times=99)
        result = await w.sync_one()
        assert result.outcome == "partial"
        assert result.totals.tags.copied == 2
        assert result.totals.tags.failed == 1
        assert result.totals.blobs.failed == 1
        [failure] = result.failures
        assert (failure.site, failure.repository, failure.operation) == ("source", "app", "read blob")
        assert (failure.cause, failure.reason) == ("forbidden", "denied")


async def test_every_failure_is_told_once_as_an_event_too() -> None:
    async with world() as w:
        w.put("app", "v1")
        w.left.fail("write_manifest", Rejected("left", "write manifest", "no", repository="app"))
        result = await w.sync_one()
        told = [event for event in w.seen if isinstance(event, Failed)]
        assert [(one.site, one.repository, one.operation, one.cause) for one in told] == [
            (one.site, one.repository, one.operation, one.cause) for one in result.failures
        ]


async def test_bad_tag_leaves_the_other_tags_of_its_repository() -> None:
    async with world() as w:
        for tag in ("v1", "v2", "v3"):
            w.put("app", tag)
        w.source.fail("resolve", Rejected("source", "resolve", "odd"), subject="v2")
        result = await w.sync_one()
        assert set(w.tags()["app"]) == {"v1", "v3"}
        assert (result.outcome, result.failures[0].cause) == ("partial", "tag v2: odd")


async def test_repository_that_cannot_be_listed_leaves_the_others() -> None:
    async with world() as w:
        w.put("bad", "v1")
        w.put("good", "v1")
        w.source.fail("tags", Denied("source", "list tags", "no", repository="bad"), repository="bad")
        result = await w.sync_one()
        assert set(w.tags()) == {"good"}
        assert result.outcome == "partial"
        assert [(one.repository, one.cause) for one in result.failures] == [("bad", "no")]


async def test_dead_destination_leaves_the_other_one() -> None:
    async with world(destinations=["left", "right"]) as w:
        built = w.put("app", "v1")
        w.left.fail("tags", DOWN, times=99)
        both = (await w.sync(rule(destinations=["left", "right"])))[0].destinations
        assert [one.outcome for one in both] == ["failed", "ok"]
        assert w.tags("right")["app"]["v1"] == built.digest
        assert both[0].failures[0].site == "left"


async def test_dead_source_leaves_the_rules_of_other_sources() -> None:
    async with world(mirrors=["second"]) as w:
        w.put("app", "v1")
        w.source.fail("repositories", Unavailable("source", "list repositories", "no answer"), times=99)
        load(w.sites["second"].store, "other", "v1", image("other"))
        first, second = await w.sync(rule("first"), rule("second", source="second"))
        assert [first.destinations[0].outcome, second.destinations[0].outcome] == ["failed", "ok"]
        assert set(w.tags()) == {"other"}


async def test_lost_site_is_told_once_and_not_asked_for_ever() -> None:
    async with world() as w:
        for number in range(300):
            w.put("app", f"v{number}", image(f"{number}", layers=1))
        w.left.fail("write_blob", AuthFailed("left", "write blob", "401", repository="app"), times=9_999)
        result = await w.sync_one()
        assert result.outcome == "failed"
        assert result.totals.tags.failed == 300  # every tag counts
        assert len(only(result, "failed")) == 300
        assert len(result.failures) < 70  # but what was never tried is told once
        assert w.left.count("write_blob") < 200


async def test_failures_here_and_there_do_not_make_a_site_lost() -> None:
    async with world() as w:
        for number in range(150):
            w.put("app", f"v{number:02}")
        for number in range(0, 150, 3):
            bad = image(f"app:v{number:02}").manifest.blobs[1].digest
            reset = Unavailable("source", "read blob", "reset", repository="app")
            w.source.fail("open_blob", reset, subject=bad, times=99)
        result = await w.sync_one()
        assert (result.totals.tags.copied, result.totals.tags.failed) == (100, 50)
        assert not any("not tried" in failure.cause for failure in result.failures)


@pytest.mark.parametrize("method", ["tags", "resolve", "write_blob", "write_manifest", "has_blob"])
async def test_fault_of_ours_at_a_destination_stays_there(method: str) -> None:
    async with world(destinations=["left", "right"]) as w:
        w.put("app", "v1", image("large", [layer("large", 100_000)]))
        load(w.left.store, "app", "v1", image("old"))
        load(w.right.store, "app", "v1", image("old"))
        w.left.fail(method, ZeroDivisionError("a bug"), times=99)  # type: ignore[arg-type]
        left, right = (await w.sync(rule(destinations=["left", "right"])))[0].destinations
        assert (left.outcome, right.outcome) == ("failed", "ok")
        assert "unexpected ZeroDivisionError: a bug" in left.failures[0].cause
        assert left.failures[0].reason == "internal"


@pytest.mark.parametrize("method", ["tags", "resolve", "read_manifest"])
async def test_fault_of_ours_in_one_repository_of_the_source_stays_there(method: str) -> None:
    async with world() as w:
        w.put("bad", "v1")
        w.put("good", "v1")
        w.source.fail(method, ZeroDivisionError("a bug"), repository="bad", times=99)  # type: ignore[arg-type]
        result = await w.sync_one()
        assert result.outcome == "partial"
        assert set(w.tags()) == {"good"}
        assert "unexpected ZeroDivisionError: a bug" in result.failures[0].cause


async def test_fault_of_ours_in_the_listing_of_repositories_is_a_failure() -> None:
    async with world() as w:
        w.put("app", "v1")
        w.source.fail("repositories", ZeroDivisionError("a bug"))
        result = await w.sync_one()
        assert result.outcome == "failed"
        assert "a bug" in result.failures[0].cause


async def test_listing_that_breaks_off_at_the_source_is_a_failure_and_what_it_told_is_copied() -> None:
    async with world() as w:
        w.source.page = 2
        for tag in ("v1", "v2", "v3", "v4"):
            w.put("app", tag)
        _breaks_off(w.source, "app", Unavailable("source", "list tags", "reset", repository="app"))
        result = await w.sync_one()
        assert set(w.tags()["app"]) == {"v1", "v2"}
        assert (result.outcome, result.failures[0].cause) == ("partial", "reset")
        [standing] = await w.state.standings(["rule"])
        assert (standing.last_look, standing.last_success) == (None, None)


async def test_latest_is_not_chosen_from_a_listing_that_broke_off() -> None:
    """`latest = 1` of the first page may be years old."""
    async with world() as w:
        w.source.page = 2
        for tag in ("1.0.0", "1.0.1", "2.0.0"):
            w.put("app", tag)
        _breaks_off(w.source, "app", Unavailable("source", "list tags", "reset", repository="app"))
        result = await w.sync_one(rule(selection=TagSelection(latest=1)))
        assert w.tags() == {}
        assert [failure.cause for failure in result.failures] == ["reset"]


@pytest.mark.parametrize("page", [1, 2])
async def test_listing_of_which_a_later_page_is_not_found_is_not_an_empty_one(page: int) -> None:
    """A registry (zot) may answer 404 where the tag is gone after which the next page was to begin."""
    async with world() as w:
        w.source.page = page
        for tag in ("v1", "v2", "v3"):
            w.put("app", tag)
        _breaks_off(w.source, "app", NotFound("source", "list tags", "gone", repository="app"))
        result = await w.sync_one()
        assert [failure.cause for failure in result.failures] == ["gone"]
        assert len(w.tags()["app"]) == page
        assert (await w.state.standings(["rule"]))[0].last_look is None


@pytest.mark.parametrize("doubtful", [False, True])
async def test_repository_in_the_catalog_without_tags_is_empty_only_if_the_registry_says_so(
    *, doubtful: bool
) -> None:
    """CNCF distribution says NAME_UNKNOWN where the last tag is gone; a proxy's 404 may lead astray."""
    async with world() as w:
        w.put("app", "v1")
        w.put("web", "v1")
        gone = NotFound("source", "list tags", "404 Not Found", repository="web", doubtful=doubtful)
        w.source.fail("tags", gone, repository="web")
        result = await w.sync_one()
        assert w.tags().keys() == {"app"}
        assert [failure.repository for failure in result.failures] == (["web"] if doubtful else [])
        assert result.outcome == ("partial" if doubtful else "ok")


async def test_listing_that_breaks_off_at_the_destination_is_not_an_empty_one() -> None:
    async with world() as w:
        w.left.page = 1
        for tag in ("v1", "v2"):
            w.put("app", tag)
        await w.sync_one()
        w.clear_log()
        _breaks_off(w.left, "app", Unavailable("left", "list tags", "reset", repository="app"))
        result = await w.sync_one()
        assert (result.outcome, result.failures[0].site) == ("failed", "left")
        assert w.left.count("write_manifest") == 0
        [standing] = await w.state.standings(["rule"])
        assert standing.last_look is not None  # the one before
        assert isinstance(w.state, MemoryState)
        assert [row.complete_look for row in await w.state.runs("rule", "left")] == [False, True]


async def test_catalog_that_breaks_off_is_a_failure_and_no_complete_look() -> None:
    async with world() as w:
        w.put("app", "v1")

        async def repositories() -> AsyncIterator[Sequence[str]]:
            yield ["app"]
            raise Unavailable("source", "list repositories", "reset")

        w.source.repositories = repositories  # type: ignore[method-assign]
        result = await w.sync_one()
        assert result.outcome == "partial"
        assert set(w.tags()) == {"app"}
        assert (await w.state.standings(["rule"]))[0].last_look is None


async def test_rule_that_matches_no_repository_says_so() -> None:
    async with world() as w:
        w.put("app", "v1")
        result = await w.sync_one(rule(repositories=["nothing/**"]))
        assert result.outcome == "ok"
        assert result.warnings == ["rule rule: no repository of source matches"]


async def test_rule_that_matches_no_tag_says_so() -> None:
    async with world() as w:
        w.put("app", "v1")
        result = await w.sync_one(rule(tags=["release-*"]))
        assert result.warnings == ["rule rule: no tag matches (repositories: 1)"]


async def test_failure_is_not_taken_for_a_rule_that_matches_nothing() -> None:
    async with world() as w:
        w.source.fail("repositories", Unavailable("source", "list repositories", "down"))
        result = await w.sync_one()
        assert (result.outcome, result.warnings) == ("failed", [])


async def test_repository_named_in_the_rule_that_is_not_there_is_a_failure() -> None:
    async with world() as w:
        w.put("app", "v1")
        result = await w.sync_one(rule(repositories=["app", "typo"]))
        assert result.outcome == "partial"
        assert [(one.repository, one.reason) for one in result.failures] == [("typo", "not_found")]


async def test_tag_named_in_the_rule_that_is_not_there_is_a_failure() -> None:
    async with world() as w:
        w.put("app", "v1")
        result = await w.sync_one(rule(tags=["v1", "typo"]))
        assert result.outcome == "partial"
        assert "typo" in result.failures[0].cause


async def test_tag_that_is_listed_but_not_there_is_a_warning() -> None:
    async with world() as w:
        w.put("app", "v1")
        w.put("app", "ghost")
        del w.source.store.repositories["app"].manifests[w.source.store.repositories["app"].tags["ghost"]]
        result = await w.sync_one()
        assert result.outcome == "ok"
        assert result.warnings == ["source: app: tag ghost is listed but not there"]


async def test_fewer_tags_than_min_tags_is_a_failure() -> None:
    async with world() as w:
        w.put("app", "v1")
        table = TagSelection(include=(parse_tag_pattern("v*"),), min_tags=2)
        result = await w.sync_one(rule(selection=table))
        assert result.outcome == "partial"
        assert "min_tags" in result.failures[0].cause


async def test_nothing_is_ever_deleted() -> None:
    async with world() as w:
        w.put("app", "v1")
        load(w.left.store, "app", "theirs", image("theirs"))
        load(w.left.store, "foreign", "v1", image("foreign"))
        await w.sync_one()
        del w.source.store.repositories["app"]
        w.put("other", "v1")
        await w.sync_one(recheck=True)
        assert set(w.tags()) == {"app", "foreign", "other"}
        assert set(w.tags()["app"]) == {"v1", "theirs"}
        assert w.left.count("delete_tag") == 0


async def test_slow_destination_does_not_delay_the_other_one() -> None:
    async with world(destinations=["left", "right"]) as w:
        for number in range(5):
            w.put("app", f"v{number}")
        pause = w.left.pause("tags")
        run = asyncio.create_task(w.sync(rule(destinations=["left", "right"])))
        await pause.reached.wait()
        await until(lambda: len(w.tags("right").get("app", {})) == 5)
        assert w.tags("left") == {}
        pause.release()
        assert [one.outcome for one in (await run)[0].destinations] == ["ok", "ok"]


async def test_slow_destination_does_not_delay_the_end_of_the_other_one() -> None:
    async with world(destinations=["left", "right"]) as w:
        w.put("app", "v1")
        pause = w.left.pause("write_blob")
        ended: list[str] = []
        run = asyncio.create_task(
            w.engine().sync(
                [rule(destinations=["left", "right"])],
                listener=RunListener(ended=lambda _, result: ended.append(result.destination)),
            )
        )
        await pause.reached.wait()
        await until(lambda: ended)
        assert ended == ["right"]
        pause.release()
        await run
        assert ended == ["right", "left"]


async def test_observing_and_copying_overlap() -> None:
    async with world() as w:
        w.put("a", "v1")
        w.put("b", "v1")
        pause = w.source.pause("resolve", subject="v2")
        w.put("b", "v2")
        run = asyncio.create_task(w.sync_one())
        await pause.reached.wait()
        await until(lambda: "a" in w.tags())
        pause.release()
        await run
        assert set(w.tags()["b"]) == {"v1", "v2"}


async def test_failure_is_shared_by_all_images_that_want_the_blob() -> None:
    async with world() as w:
        shared = layer("shared", 100_000)
        for number in range(8):
            w.put("app", f"v{number}", image(f"{number}", [shared]))
        digest = image("0", [shared]).manifest.blobs[1].digest
        reset = Denied("source", "read blob", "forbidden", repository="app")
        pause = w.source.pause("open_blob", subject=digest)
        w.source.fail("open_blob", reset, subject=digest, times=99)
        run = asyncio.create_task(w.sync_one())
        await pause.reached.wait()
        await until(lambda: w.source.count("read_manifest") == 8)
        await settled()
        pause.release()
        result = await run
        assert result.totals.tags.failed == 8
        assert w.source.count("open_blob", digest) == 1


async def test_source_failure_is_told_to_those_who_wait_in_other_repositories() -> None:
    async with world() as w:
        shared = layer("shared", 100_000)
        first = w.put("a", "v1", image("one", [shared]))
        w.put("a", "v2", image("two", [shared]))
        digest = first.manifest.blobs[1].digest

        def forbidden(operation: Operation) -> SiteError:
            return Denied("source", "read blob", "forbidden", repository=operation.repository)

        w.source.fail("open_blob", forbidden, subject=digest, times=99)
        pause = w.source.pause("open_blob", subject=digest)
        run = asyncio.create_task(w.sync(rule("one", tags=["v1"]), rule("two", tags=["v2"], prefix="copy/")))
        await pause.reached.wait()
        await settled()
        pause.release()
        results = await run
        assert [one.destinations[0].outcome for one in results] == ["failed", "failed"]
        assert {one.destinations[0].failures[0].site for one in results} == {"source"}
        assert w.source.count("open_blob", digest) == 1


async def test_refusal_in_one_repository_of_a_destination_is_not_the_next_ones() -> None:
    async with world() as w:
        built = w.put("app", "v1", image("app", [layer("shared", 100_000)]))
        digest = built.manifest.blobs[1].digest

        def quota(operation: Operation) -> SiteError:
            return Rejected("left", "write blob", "quota", repository=operation.repository)

        pause = w.left.pause("write_blob", subject=digest)
        w.left.fail("write_blob", quota, subject=digest)
        run = asyncio.create_task(w.sync(rule("one"), rule("two", prefix="copy/")))
        await pause.reached.wait()
        await settled()
        pause.release()
        assert sorted(result.destinations[0].outcome for result in await run) == ["failed", "ok"]
