"""When something is checked again, and when a failed tag is tried again."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from replicator.policy.backoff import LONGEST_SECONDS, is_postponed, retry_at
from replicator.policy.recheck import CLOCK_SLACK_SECONDS, is_ahead, is_due

DAY = 86_400.0
NOW = 1_700_000_000.0

times = st.floats(1e9, 2e9)
periods = st.floats(1.0, 30 * DAY)
keys = st.text(max_size=20)


@given(times, st.none() | times, keys)
def test_what_was_never_checked_or_in_the_future_is_due(now: float, last: float | None, key: str) -> None:
    assume(last is None or last > now + CLOCK_SLACK_SECONDS)
    assert is_due(now, last, DAY, key)


@given(times, periods, keys)
def test_what_was_checked_this_moment_is_not_due(now: float, period: float, key: str) -> None:
    assert not is_due(now, now, period, key)


@given(times, periods, keys)
def test_everything_is_due_within_a_period(last: float, period: float, key: str) -> None:
    assert is_due(last + period * (1 + 1e-6) + 1e-3, last, period, key)


@given(times, periods, keys, st.floats(0, 1e7), st.floats(0, 1e7))
def test_what_is_due_stays_due_until_it_is_checked(
    last: float, period: float, key: str, first: float, more: float
) -> None:
    if is_due(last + first, last, period, key):
        assert is_due(last + first + more, last, period, key)


@given(keys, st.floats(0, DAY), st.integers(1, 200))
def test_checked_whenever_due_it_is_checked_once_a_period_however_often_it_is_asked(
    key: str, offset: float, looks: int
) -> None:
    last = NOW + offset
    checks = 0
    for number in range(1, looks * 5 + 1):
        now = NOW + offset + number * DAY / looks
        if is_due(now, last, DAY, key):
            checks, last = checks + 1, now
    assert checks in {4, 5}


@given(times, keys, st.floats(0, DAY), st.floats(0, 3 * DAY))
def test_a_check_out_of_turn_does_not_move_the_turns(
    last: float, key: str, passed: float, more: float
) -> None:
    """`sync --recheck` for all must not make all due at one hour of the next day."""
    early = last + passed
    assume(not is_due(early, last, DAY, key))
    assert is_due(early + more, early, DAY, key) == is_due(early + more, last, DAY, key)


def test_a_cold_copy_comes_due_evenly() -> None:
    keys = [f"fra/team/app:v1.{number}" for number in range(24_000)]
    hours = [
        sum(
            is_due(NOW + hour * 3600, NOW, DAY, key) and not is_due(NOW + (hour - 1) * 3600, NOW, DAY, key)
            for key in keys
        )
        for hour in range(1, 25)
    ]
    assert sum(hours) == len(keys)
    assert max(hours) < 1.25 * len(keys) / 24
    assert min(hours) > 0.75 * len(keys) / 24


def test_without_a_period_everything_is_due() -> None:
    assert is_due(NOW, NOW, 0.0, "v1")


@pytest.mark.parametrize(
    ("time", "ahead"), [(NOW - 1, False), (NOW + CLOCK_SLACK_SECONDS, False), (NOW + 61.0, True)]
)
def test_a_clock_may_differ_by_a_minute(time: float, *, ahead: bool) -> None:
    assert is_ahead(NOW, time) is ahead


def test_failed_tags_wait_longer_each_time_and_never_beyond_an_hour() -> None:
    waits = [retry_at(1_000.0, attempts) - 1_000.0 for attempts in range(1, 500)]
    assert waits[:3] == [30.0, 60.0, 120.0]
    assert waits == sorted(waits)
    assert max(waits) == LONGEST_SECONDS


@given(times, st.integers(1, 50))
def test_a_failed_tag_waits_until_its_time_and_no_longer(now: float, attempts: int) -> None:
    at = retry_at(now, attempts)
    assert is_postponed(now, at)
    assert not is_postponed(at, at)


def test_a_wait_that_only_a_clock_running_ahead_can_have_set_is_ignored() -> None:
    assert not is_postponed(NOW, retry_at(NOW + 10 * 365 * DAY, 1))
