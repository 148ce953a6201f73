"""Lag, at explicit times."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from replicator.policy.lag import lag
from replicator.ports import Standing

LOOK = 10_000.0
IN_STEP = Standing("rule", "fra", first_seen=5_000.0, last_look=LOOK)
NEVER_LOOKED = Standing("rule", "fra", first_seen=5_000.0)
BEHIND = Standing("rule", "fra", first_seen=5_000.0, last_look=LOOK, pending=2, oldest_pending=9_000.0)


@pytest.mark.parametrize(
    ("standing", "interval", "now", "expected"),
    [
        (BEHIND, 300.0, 10_100.0, 1_100.0),
        (BEHIND, None, 10_100.0, 1_100.0),
        (IN_STEP, 300.0, LOOK + 10, 0.0),
        (IN_STEP, 300.0, LOOK + 300, 0.0),
        (IN_STEP, 300.0, LOOK + 600, 0.0),
        (IN_STEP, 300.0, LOOK + 601, 601.0),
        (IN_STEP, None, LOOK + 1e9, 0.0),
        (NEVER_LOOKED, 300.0, 5_060.0, 60.0),
        (NEVER_LOOKED, None, 5_060.0, 60.0),
    ],
    ids=[
        "pending: the age of the oldest",
        "pending, nobody promised a look: the same",
        "in step",
        "the next look is due",
        "the next look is late by just an interval",
        "the next look is overdue: the age of the last",
        "nobody promised a look: never overdue",
        "no look yet: the age of the rule",
        "no look yet, nobody promised one: the same",
    ],
)
def test_lag_is_as_defined(standing: Standing, interval: float | None, now: float, expected: float) -> None:
    assert lag(standing, interval, now) == expected


@pytest.mark.parametrize(("oldest", "expected"), [(4_000.0, 1_060.0), (5_050.0, 60.0)])
def test_before_the_first_look_a_pending_tag_can_only_add_to_the_lag(oldest: float, expected: float) -> None:
    standing = Standing("rule", "fra", first_seen=5_000.0, pending=1, oldest_pending=oldest)
    assert lag(standing, 300.0, 5_060.0) == expected


def test_held_tags_are_no_lag() -> None:
    held = Standing("rule", "fra", first_seen=5_000.0, last_look=LOOK, held=3)
    assert lag(held, 300.0, LOOK + 10) == 0.0


times = st.floats(0, 1e9)


@given(st.none() | times, st.none() | times, times, st.none() | st.floats(1, 1e6), times)
def test_lag_is_never_negative_whatever_the_clocks_say(
    look: float | None, oldest: float | None, first: float, interval: float | None, now: float
) -> None:
    standing = Standing("rule", "fra", first, look, pending=int(oldest is not None), oldest_pending=oldest)
    assert lag(standing, interval, now) >= 0.0


@given(st.none() | times, st.none() | times, times, st.none() | st.floats(1, 1e6), times, times)
def test_lag_only_grows_while_nobody_looks(
    look: float | None, oldest: float | None, first: float, interval: float | None, now: float, passed: float
) -> None:
    assume(look is None or look <= now)  # one ahead is ignored until its time has come, and then is a look
    standing = Standing("rule", "fra", first, look, pending=int(oldest is not None), oldest_pending=oldest)
    assert lag(standing, interval, now + passed) >= lag(standing, interval, now)
