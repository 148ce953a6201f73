"""When a rule of a fleet is due: the same at every agent."""

from __future__ import annotations

import re
import subprocess
import sys
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from replicator.fleet.ticks import RETRY_SECONDS, Tick, Ticks, identity
from replicator.policy.pattern import Glob
from replicator.policy.rule import ImageSet, Rename, Replacement, RepositorySelection, Rule
from replicator.policy.schedule import Cron
from replicator.trust.policy import Signing, TrustPolicy

RULE = Rule("apps", "hub", ("fra",), RepositorySelection((Glob.parse("team/**"),)), interval=300.0)
NOW = 1_790_000_000.0
CRON = replace(RULE, interval=None, cron=Cron("0 3 * * *", ZoneInfo("Europe/Berlin")))
NEVER = replace(RULE, interval=None)


@given(st.floats(0, 10_000), st.floats(0, 10_000), st.sampled_from([1.0, 7.0, 300.0, 86_400.0]))
def test_agents_that_started_at_different_times_are_due_at_the_same_ticks(
    first: float, second: float, interval: float
) -> None:
    rule = replace(RULE, interval=interval)
    one, other = (Ticks(rule, last_look=NOW - 2 * interval - since) for since in (first, second))
    now = NOW + max(first, second)
    assert one.due(now, is_failing=False) == other.due(now, is_failing=False)


def test_a_tick_comes_once_and_the_next_an_interval_later() -> None:
    ticks = Ticks(RULE, last_look=NOW - 1000)
    tick = ticks.due(NOW, is_failing=False)
    assert tick is not None
    assert tick.cause == "interval"
    ticks.done(tick, NOW)
    assert ticks.due(NOW, is_failing=True) is None
    following = ticks.next(NOW)
    assert following is not None
    assert ticks.due(following - 1, is_failing=False) is None
    later = ticks.due(following + 1, is_failing=False)
    assert later is not None
    assert later.at == tick.at + 300_000


def test_a_new_rule_is_due_at_once_and_then_not_before_its_interval() -> None:
    ticks = Ticks(RULE, last_look=NOW, is_new=True)
    assert ticks.due(NOW + 2, is_failing=False) == Tick(int(NOW * 1000), "start"), (
        "named by when it was noted"
    )
    assert ticks.due(NOW + 2, is_failing=False) is not None, "until somebody has taken care of it"
    ticks.done(Tick(int(NOW * 1000), "start"), NOW + 2)
    assert ticks.due(NOW + 3, is_failing=False) is None


def test_a_rule_that_was_looked_at_since_the_tick_is_not_due() -> None:
    assert Ticks(RULE, last_look=NOW).due(NOW, is_failing=False) is None


def test_a_time_of_cron_that_passed_while_nobody_was_up_is_made_up_for_once() -> None:
    ticks = Ticks(CRON, last_look=NOW - 3 * 86_400)
    tick = ticks.due(NOW, is_failing=False)
    assert tick is not None
    assert 0 <= NOW - tick.at / 1000 < 86_400
    ticks.done(tick, NOW)
    assert ticks.due(NOW + 60, is_failing=False) is None
    assert CRON.cron is not None
    assert ticks.next(NOW) == CRON.cron.next_after(NOW)


def test_a_rule_without_a_schedule_is_looked_at_again_while_something_fails() -> None:
    ticks = Ticks(NEVER, last_look=NOW - 10_000)
    assert ticks.due(NOW, is_failing=False) is None
    tick = ticks.due(NOW, is_failing=True)
    assert tick is not None
    ticks.done(tick, NOW)
    assert ticks.due(NOW + 1, is_failing=True) is None
    assert ticks.due(NOW + RETRY_SECONDS, is_failing=True) is not None
    assert ticks.next(NOW) is None


def test_the_identity_of_a_rule_is_the_same_at_agents_with_other_keys_and_names() -> None:
    """Functions and keys show their addresses, and what is signed names the agent that signs."""
    signing = Signing(lambda: "key", "agent-1", hosts=(("fra", "fra.example.com"),))
    one = replace(RULE, sign=signing, images=Lists())
    other = replace(RULE, sign=replace(signing, key=lambda: "key", agent="agent-2"), images=Lists())
    assert identity(one) == identity(other)
    assert identity(replace(one, sign=replace(signing, statement=False))) != identity(one)
    assert identity(replace(one, trust=(TrustPolicy("signed"),))) != identity(one)


def test_a_rule_is_another_where_the_end_of_a_long_pattern_is() -> None:
    def renaming(end: str) -> Rule:
        long = Replacement(re.compile("|".join(f"team-{number}" for number in range(100)) + end), "x")
        return replace(RULE, rename_repository=Rename(replacements=(long,)))

    assert identity(renaming("a")) == identity(renaming("a")) != identity(renaming("b"))


class Lists:
    """Lists of images that say nothing about themselves."""

    def read(self) -> ImageSet:
        raise AssertionError("nothing is read")


def test_the_identity_of_a_rule_is_the_same_in_every_process_and_another_for_another_rule() -> None:
    program = (
        "from tests.fleet.test_fleet_ticks import CRON, RULE; from replicator.fleet.ticks import identity;"
        "print(identity(RULE), identity(CRON))"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": "."},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert seen == {f"{identity(RULE)} {identity(CRON)}\n"}
    assert identity(RULE) != identity(CRON)
