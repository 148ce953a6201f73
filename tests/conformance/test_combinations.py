"""Habits of registries in combination: every pair of them meets, at the source and at the destination.

A registry in the field has several habits, and a proxy before it has more. The rows are a covering array, made
greedily: each pair of choices for two of the dimensions is in one row at least.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping

import pytest
from aiohttp.typedefs import Middleware

from replicator.demo.images import image
from replicator.sites.registry import auth
from tests.acceptance.wired import wired
from tests.fakes import content, habits, places
from tests.fakes.auth import Basic, Bearer
from tests.fakes.registry import Auth, FakeRegistry
from tests.fakes.watched import WatchedStore

USERS = {"mirror": "not-to-be-told"}

READING: dict[str, Callable[[], Middleware] | None] = {
    "heads tell": None,
    "heads 401": lambda: habits.heads_answered(401),
    "heads 404": lambda: habits.heads_answered(404),
    "heads 405": lambda: habits.heads_answered(405),
    "heads 500": lambda: habits.heads_answered(500),
    "heads are pages": lambda: habits.heads_answered(200, html=True),
    "no digests": habits.artifactory,
}
LISTING: dict[str, Callable[[], Middleware] | None] = {
    "whole": None,
    "pages": lambda: habits.page_size(2),
    "links to the inner host": lambda: habits.page_size(2, link="foreign"),
    "n is 405": lambda: habits.answers(lambda request: "n" in request.query, 405),
    "n is a page": lambda: habits.answers(lambda request: "n" in request.query, 200, html=True),
    "no order": habits.distribution_tags,
}
WIRE: dict[str, Callable[[], Middleware] | None] = {
    "plain": None,
    "every fifth dies": lambda: habits.drops_every(5),
    "limited": lambda: habits.rate_limit(60),
    "limited by 503": lambda: habits.rate_limit(60, status=503),
    "storage elsewhere": places.blobs_in_storage,
    "compressed": habits.gzips_always,
    "long headers": habits.long_headers,
}
SHOWING: dict[str, Callable[[], Middleware] | None] = {
    "shows": None,
    "hides by 401": lambda: habits.hides_unknown_repositories(401),
    "hides by 403": lambda: habits.hides_unknown_repositories(403),
    "does not list": lambda: habits.no_tags_list(405),
    "may not be pulled": habits.pull_policy,
}
WRITING: dict[str, Callable[[], Middleware] | None] = {
    "as the standard has it": None,
    "states": places.stateful_locations,
    "elsewhere": places.uploads_in_storage,
    "small bodies": lambda: habits.cuts_large_bodies(100_000),
    "no locations": places.no_location,
}
LOGIN: dict[str, Callable[[], Auth] | None] = {
    "open": None,
    "basic": lambda: Basic(USERS),
    "tokens": lambda: Bearer(USERS),
    "short tokens": lambda: Bearer(USERS, good_for=8),
    "late tokens": lambda: Bearer(USERS, late=1),
    "moved token service": lambda: Bearer(USERS, moved=True),
}

Row = tuple[str, ...]


def covering(*dimensions: Mapping[str, object]) -> Iterator[Row]:
    """Rows of choices, one of each dimension, in which every pair of choices is met."""
    width = range(len(dimensions))
    missing = {
        (one, a, other, b)
        for one, other in itertools.combinations(width, 2)
        for a in dimensions[one]
        for b in dimensions[other]
    }

    def pairs(row: Row) -> set[tuple[int, str, int, str]]:
        return {(one, row[one], other, row[other]) for one, other in itertools.combinations(width, 2)}

    rows = sorted(itertools.product(*dimensions))
    while missing:
        best = max(rows, key=lambda row: len(pairs(row) & missing))
        missing -= pairs(best)
        yield best


SOURCES = list(covering(READING, LISTING, WIRE, LOGIN))
TARGETS = list(covering(READING, SHOWING, WIRE, WRITING, LOGIN))


def fake(
    choices: Row, *dimensions: Mapping[str, Callable[[], Middleware] | None], login: str
) -> FakeRegistry:
    made = [dimension[choice] for dimension, choice in zip(dimensions, choices, strict=True)]
    guard = LOGIN[login]
    store = WatchedStore(refuses_dangling=False)
    return FakeRegistry(
        *[make() for make in made if make is not None], auth=guard() if guard else None, store=store
    )


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh token that was refused is tried again at once, not after half a second."""
    monkeypatch.setattr(auth, "_MOMENT_SECONDS", 0.01)


@pytest.mark.parametrize("row", SOURCES, ids=" + ".join)
async def test_source_of_these_habits_is_copied(row: Row) -> None:
    *choices, login = row
    async with wired(source=fake(tuple(choices), READING, LISTING, WIRE, login=login), with_login=True) as w:
        for number in range(3):
            w.put("app", f"v1.{number}", content.odd_descriptors(f"v1.{number}") if number else None)
        result = await w.sync_one()
        assert result.outcome == "ok", result.failures
        assert w.tags() == w.whole


@pytest.mark.parametrize("row", TARGETS, ids=" + ".join)
async def test_destination_of_these_habits_is_brought_in_step_and_left_so(row: Row) -> None:
    *choices, login = row
    async with wired(
        target=fake(tuple(choices), READING, SHOWING, WIRE, WRITING, login=login), with_login=True
    ) as w:
        assert (result := await w.sync_one()).outcome == "ok", result.failures
        w.put("app", "v1", image("moved"))
        assert (result := await w.sync_one()).outcome == "ok", result.failures
        assert w.tags() == w.whole
