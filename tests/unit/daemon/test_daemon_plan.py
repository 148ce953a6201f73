from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.daemon.plan import Plan
from replicator.policy.bandwidth import Bandwidth, Window, parse_days, parse_time
from replicator.policy.pattern import Glob
from replicator.policy.rule import RepositorySelection, Rule
from replicator.policy.schedule import Cron, promised_interval, spread

BERLIN = ZoneInfo("Europe/Berlin")
NOW = 1_700_000_000.0


def rule(*, interval: float | None = None, cron: Cron | None = None) -> Rule:
    everything = RepositorySelection((Glob.parse("**"),))
    return Rule("r", "hub", ("fra",), everything, interval=interval, cron=cron)


def plan(rule: Rule, last_look: float | None) -> Plan:
    return Plan(rule, "agent", last_look=last_look, now=NOW, monotonic=100.0)


def at(text: str) -> float:
    return dt.datetime.fromisoformat(text).replace(tzinfo=BERLIN).timestamp()


def berlin(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, BERLIN).isoformat()


# --- cron across changes of clocks ---


def test_a_time_that_is_skipped_runs_right_after_the_change() -> None:
    cron = Cron("30 2 * * *", BERLIN)
    first = cron.next_after(at("2026-03-28T03:00"))
    assert berlin(first) == "2026-03-29T03:00:00+02:00"
    assert berlin(cron.next_after(first)) == "2026-03-30T02:30:00+02:00"


def test_a_time_that_comes_twice_runs_once() -> None:
    cron = Cron("30 2 * * *", BERLIN)
    first = cron.next_after(at("2026-10-24T03:00"))
    assert berlin(first) == "2026-10-25T02:30:00+02:00"
    assert berlin(cron.next_after(first)) == "2026-10-26T02:30:00+01:00"


@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25"])
def test_what_runs_every_five_minutes_runs_on_through_a_change(day: str) -> None:
    cron, moment = Cron("*/5 * * * *", BERLIN), at(f"{day}T00:00")
    for _ in range(60):
        following = cron.next_after(moment)
        assert following - moment == 300
        moment = following


@given(
    st.integers(0, 2**32), st.sampled_from(["*/5 * * * *", "30 2 * * *", "0 0 1 * *", "15 */6 * * mon-fri"])
)
def test_the_next_time_is_always_later(moment: int, expression: str) -> None:
    assert Cron(expression, BERLIN).next_after(moment) > moment


# --- intervals ---


def test_a_rule_that_was_never_looked_at_is_due_at_once() -> None:
    assert plan(rule(interval=300), None).is_due(NOW, 100.0)


def test_an_overdue_rule_is_due_at_once_and_another_at_its_time() -> None:
    assert plan(rule(interval=300), NOW - 301).is_due(NOW, 100.0)
    waiting = plan(rule(interval=300), NOW - 100)
    assert not waiting.is_due(NOW + 199, 299.0)
    assert waiting.is_due(NOW + 230, 330.0)


def test_an_overdue_cron_rule_is_due_at_once() -> None:
    nightly = Cron("0 3 * * *", BERLIN)
    assert plan(rule(cron=nightly), NOW - 90_000).is_due(NOW, 100.0)
    assert not plan(rule(cron=nightly), NOW - 60).is_due(NOW, 100.0)


def test_many_missed_ticks_are_one() -> None:
    it = plan(rule(interval=10), NOW - 5)
    assert it.is_due(NOW + 1000, 1100.0)
    it.advance(NOW + 1000, 1100.0)
    assert not it.is_due(NOW + 1000, 1100.0)
    assert it.is_due(NOW + 1011, 1111.0)


def test_being_a_little_late_does_not_add_up() -> None:
    it = plan(rule(interval=10), None)
    it.advance(NOW, 100.0)
    due = it.next_run
    assert due is not None
    it.advance(due + 1, 100.0 + due - NOW + 1)
    assert it.next_run == pytest.approx(due + 10)


def test_an_interval_does_not_wait_for_a_wall_clock_that_was_set_back() -> None:
    it = plan(rule(interval=60), NOW)
    assert it.is_due(NOW - 3600 + 67, 167.0)


def test_an_interval_is_due_after_the_machine_slept() -> None:
    it = plan(rule(interval=60), NOW)
    assert it.is_due(NOW + 3600, 101.0)


def test_cron_follows_a_wall_clock_that_was_set_back() -> None:
    it = plan(rule(cron=Cron("0 * * * *")), NOW)
    assert not it.is_due(NOW + 1, 101.0)
    assert not it.is_due(NOW - 36_000, 102.0)
    assert it.next_run is not None
    assert it.next_run <= NOW - 36_000 + 3600


def test_a_rule_without_a_schedule_runs_once_at_the_start() -> None:
    it = plan(rule(), NOW - 5)
    assert it.is_due(NOW, 100.0)
    it.advance(NOW, 100.0)
    assert it.seconds_left(NOW, 100.0) is None
    assert not it.is_due(NOW + 10**9, 10.0**9)


@given(st.text(max_size=20), st.text(max_size=20), st.floats(1, 1e6))
def test_looks_are_spread_by_at_most_a_tenth_and_always_alike(agent: str, name: str, interval: float) -> None:
    moved = spread(agent, name, interval)
    assert 0 <= moved <= interval / 10
    assert moved == spread(agent, name, interval)


def test_agents_look_at_different_times() -> None:
    assert len({spread(f"agent{n}", "rule", 300) for n in range(50)}) == 50


def test_a_cron_look_is_overdue_after_two_times_without_one() -> None:
    cron = Cron("0 3 * * *", BERLIN)
    look = at("2026-06-01T03:00:05")
    interval = promised_interval(None, cron, look)
    assert interval is not None
    assert look + 2 * interval == at("2026-06-03T03:00")


# --- bandwidth by time of day ---

OFFICE = Bandwidth(
    100, (Window(parse_days("mon-fri"), parse_time("08:00"), parse_time("18:00"), 20),), BERLIN
)


@pytest.mark.parametrize(
    ("moment", "limit"),
    [
        ("2026-06-01T07:59:59", 100),
        ("2026-06-01T08:00", 20),
        ("2026-06-01T17:59:59", 20),
        ("2026-06-01T18:00", 100),
        ("2026-06-06T12:00", 100),
        ("2026-03-30T08:00", 20),  # the first working morning of summer time
    ],
)
def test_the_window_of_the_moment_limits(moment: str, limit: int) -> None:
    assert OFFICE.at(at(moment)) == limit


@pytest.mark.parametrize(
    ("moment", "limit"),
    [
        ("2026-06-05T23:00", 5),
        ("2026-06-06T05:59", 5),
        ("2026-06-06T06:00", None),
        ("2026-06-05T05:00", None),
    ],
)
def test_a_window_that_passes_midnight_is_of_the_day_it_begins(moment: str, limit: int | None) -> None:
    friday = Window(parse_days("fri"), parse_time("22:00"), parse_time("06:00"), 5)
    assert Bandwidth(None, (friday,), BERLIN).at(at(moment)) == limit


def test_the_first_window_that_holds_counts() -> None:
    windows = (Window(parse_days("mon-sun"), 0, 1440, 1), Window(parse_days("mon-sun"), 0, 1440, 2))
    assert Bandwidth(3, windows, BERLIN).at(NOW) == 1


def test_days_go_round_the_week() -> None:
    assert parse_days("sat-mon,wed") == {5, 6, 0, 2}
