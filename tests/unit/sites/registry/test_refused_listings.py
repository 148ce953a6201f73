"""Refused listings: for how long, of what, and what is remembered of them."""

from __future__ import annotations

import pytest

from replicator.policy.recheck import CLOCK_SLACK_SECONDS
from replicator.ports import ListingRefused
from replicator.sites.registry.refusedlistings import AGAIN_SECONDS, ALL, RefusedListings

NOW = 1_700_000_000.0


def refuse(known: RefusedListings, repository: str, *, about: bool = True, at: float = NOW) -> str:
    return known.add("hub", repository, "HTTP 403", at, about_repository=about).repository


def test_a_refusal_lasts_a_day() -> None:
    known = RefusedListings()
    assert refuse(known, "a") == "a"
    assert known.of("a", NOW + AGAIN_SECONDS - 1) == ListingRefused("hub", "a", NOW, "HTTP 403")
    assert known.of("a", NOW + AGAIN_SECONDS) is None
    assert known.of("b", NOW) is None


def test_three_repositories_in_a_row_are_all() -> None:
    known = RefusedListings()
    assert [refuse(known, name) for name in ("a", "a", "b", "c")] == ["a", "a", "b", ALL]
    assert known.of("d", NOW) is not None


def test_once_one_was_listed_the_others_are_refused_by_themselves() -> None:
    known = RefusedListings()
    known.worked(NOW)
    assert [refuse(known, name) for name in "abcd"] == list("abcd")
    assert known.of("e", NOW) is None


def test_a_refusal_of_all_is_of_all_though_one_was_listed() -> None:
    known = RefusedListings()
    known.worked(NOW)
    assert refuse(known, "a", about=False, at=NOW + 1) == ALL
    assert known.of("b", NOW + 1) is not None


@pytest.mark.parametrize(("at", "counts"), [(NOW - 1, False), (NOW + 1, True)], ids=["before", "after"])
def test_what_another_process_remembers_of_all_counts_if_nothing_was_listed_since(
    at: float, *, counts: bool
) -> None:
    known = RefusedListings()
    known.worked(NOW)
    known.recall([ListingRefused("hub", ALL, at, "HTTP 429"), ListingRefused("hub", "a", at, "HTTP 403")])
    assert (known.of("b", NOW + 2) is not None) is counts
    assert known.of("a", NOW + 2) is not None


def test_the_later_word_wins() -> None:
    known = RefusedListings()
    refuse(known, "a", at=NOW)
    known.recall([ListingRefused("hub", "a", NOW - 5, "old")])
    assert known.of("a", NOW) == ListingRefused("hub", "a", NOW, "HTTP 403")


def test_a_refusal_of_a_clock_that_ran_ahead_counts_as_none() -> None:
    known = RefusedListings()
    known.recall([ListingRefused("hub", "a", NOW + CLOCK_SLACK_SECONDS + 1, "HTTP 403")])
    assert known.of("a", NOW) is None
