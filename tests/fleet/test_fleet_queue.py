"""What waits: bounded, near its site, and dated by the database's clock."""

from __future__ import annotations

import re
import time
from dataclasses import replace

import psycopg
import pytest
from msgspec.structs import replace as replace_work

from replicator.events import Warned
from replicator.events.agent import FleetSeen, JobBegun
from replicator.fleet import queue
from replicator.fleet.ownership import Claim
from replicator.fleet.work import Done, Work
from replicator.flow.clock import SystemClock
from tests.fleet.agents import QUICK, LightAgent, joined, until

ROWS_READ = """SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'procrastinate_jobs'"""
"""How many rows of the queue this transaction has looked at."""


class ClockAhead(SystemClock):
    """A wall clock that is ten minutes ahead."""

    def now(self) -> float:
        return super().now() + 600.0


def works(rules: int, site: str = "fra", shards: int = 64) -> list[Work]:
    return [
        Work(f"rule{rule}", (site,), "interval", shard=shard, of=shards)
        for rule in range(rules)
        for shard in range(shards)
    ]


async def test_what_waits_for_a_dead_site_is_bounded_and_fetching_reads_no_more(shared: str) -> None:
    """A fetch looks at all that waits in front; 200,000 jobs of a site that nobody serves would make it slow."""
    agent = LightAgent("a", serves=("sgp",), destinations=("fra", "sgp"))
    alone = replace(QUICK, orphaned=3600.0)
    async with joined(shared, agent, works=False, times=alone):
        for _ in range(8):  # looks at 400 rules with 64 shards: 25,600 jobs each
            await agent.fleet.defer(await agent.fleet.within_cap(works(400)))
        with psycopg.connect(shared, autocommit=True) as connection:
            ((waiting,),) = connection.execute("SELECT count(*) FROM procrastinate_jobs").fetchall()
            assert waiting == queue.MAX_WAITING
            ((worker,),) = connection.execute("SELECT procrastinate_register_worker_v1()").fetchall()
            with connection.transaction():
                fetch = "SELECT id FROM procrastinate_fetch_job_v2(ARRAY['to sgp']::varchar[], %s)"
                connection.execute(fetch, (worker,))
                ((read,),) = connection.execute(ROWS_READ).fetchall()
        assert read <= 2 * queue.MAX_WAITING
        agent.gate.set()
        agent.fleet.begin()
        await agent.fleet.defer([Work("near", ("sgp",), "interval", shard=1, of=64)])
        await until(lambda: [work.rule for work in agent.did] == ["near"])


async def test_work_goes_to_those_who_serve_its_site_and_to_others_only_without_them(shared: str) -> None:
    near, far = LightAgent("near", serves=("fra",)), LightAgent("far", serves=("sgp",))
    near.gate.set()
    far.gate.set()
    async with joined(shared, far):
        async with joined(shared, near):
            await until(lambda: len(near.fleet.living) == 2)
            await until(lambda: "to fra" not in far.fleet._workers.queues)  # it was alone for a moment
            await near.fleet.defer(works(1, shards=8))
            await until(lambda: len(near.did) == 8)
            assert far.did == []
            seen = [event for event in near.events if isinstance(event, FleetSeen)]
            assert seen[-1].serving == {"fra": 1, "sgp": 1}
        await far.fleet.defer(works(1, shards=8))
        await until(lambda: len(far.did) == 8)  # nobody has served fra for the time that `orphaned` says
        async with joined(shared, near):
            await until(lambda: "to fra" not in far.fleet._workers.queues)
            await near.fleet.defer(works(1, shards=8))
            await until(lambda: len(near.did) == 16)
            assert len(far.did) == 8


async def test_a_clock_ten_minutes_ahead_makes_no_tick_early(shared: str) -> None:
    agent = LightAgent("a")
    async with joined(shared, agent, clock=ClockAhead()):
        assert agent.fleet.now() == pytest.approx(time.time(), abs=60.0)
        (warned,) = [event.text for event in agent.events if isinstance(event, Warned)]
    # To the second, but for half of what the database took to answer.
    assert re.fullmatch(r"the clock of this machine is (59|60)\d s ahead of that of the database", warned)


async def test_a_tick_is_deferred_once_whoever_is_up(shared: str) -> None:
    agents = LightAgent("a"), LightAgent("b")
    look = Work("apps", ("fra",), "interval")
    async with joined(shared, agents[0], works=False), joined(shared, agents[1], works=False):
        first = [await each.fleet.defer_tick(look, "apps 1", 1_000) for each in agents]
        again = [await each.fleet.defer_tick(look, "apps 1", 2_000) for each in agents]
    assert first == [True, False]
    assert again == [False, False], "the look of the first tick has not begun"


class Newcomer(LightAgent):
    """An agent whose config has none of the rules yet."""

    async def perform(self, work: Work, claim: Claim) -> Done:
        """Leaves it to others, for an hour."""
        self.did.append(work)
        return Done(again=replace_work(work, left=1_000.0), delay=3_600.0)


@pytest.mark.parametrize("again", ["by a tick", "by an event"])
async def test_work_that_was_left_waits_no_longer_once_an_agent_with_its_rule_wants_it(
    shared: str, again: str
) -> None:
    newcomer, agent = Newcomer("a"), LightAgent("b")
    look = Work("apps", ("fra",), "interval")
    agent.gate.set()
    async with joined(shared, newcomer):
        await newcomer.fleet.defer_tick(look, "apps 1", 1_000)
        with psycopg.connect(shared, autocommit=True) as connection:
            later = "SELECT count(*) FROM procrastinate_jobs WHERE status = 'todo' AND scheduled_at > now()"
            await until(lambda: connection.execute(later).fetchall() == [(1,)])
    async with joined(shared, agent):
        if again == "by a tick":
            assert not await agent.fleet.defer_tick(look, "apps 1", 2_000)
        else:
            await agent.fleet.defer([look])
        await until(lambda: len(agent.did) == 1)
    assert agent.did[0].left == 0.0


async def test_work_that_waited_says_for_how_long(shared: str) -> None:
    agent = LightAgent("a")
    agent.gate.set()
    async with joined(shared, agent):
        await agent.fleet.defer(works(1, shards=1))
        await until(lambda: len(agent.did) == 1)
    (begun,) = [event for event in agent.events if isinstance(event, JobBegun)]
    assert 0.0 <= begun.waited < 60.0


async def test_a_job_that_cannot_be_read_waits_and_stops_nobody(shared: str) -> None:
    """Another version of the program deferred it."""
    agent = LightAgent("a")
    agent.gate.set()
    async with joined(shared, agent):
        with psycopg.connect(shared, autocommit=True) as connection:
            connection.execute(
                "INSERT INTO procrastinate_jobs (queue_name, task_name, lock, queueing_lock, args)"
                " VALUES ('to fra', %s, 'x', 'x', '{\"rule\": 1}')",
                (queue.TASK,),
            )
        await agent.fleet.defer([Work("apps", ("fra",), "interval", shard=1, of=64)])
        await until(lambda: len(agent.did) == 1)
        with psycopg.connect(shared, autocommit=True) as connection:
            left = "SELECT lock FROM procrastinate_jobs WHERE status = 'todo' AND scheduled_at > now()"
            await until(lambda: connection.execute(left).fetchall() == [("x",)])


async def test_a_destination_at_which_looks_fail_is_known_to_all_agents(shared: str) -> None:
    first, second = LightAgent("a"), LightAgent("b")
    async with joined(shared, first, works=False), joined(shared, second, works=False):
        for tick in (1, 1, 2, 3):  # two shards of the first look
            await first.fleet.note_failures("apps", ["fra"], tick)
        found = await second.fleet.failures("apps", ())
        assert found["fra"][0] == 3
        assert 0.0 <= found["fra"][1] < 60.0
        assert await second.fleet.failures("more", ()) == {}
        assert await second.fleet.failures("apps", ["fra"]) == {}
        assert await first.fleet.failures("apps", ()) == {}


@pytest.mark.parametrize(
    ("column", "value"), [("args", """args || '{"platform": "arm"}'"""), ("task_name", "'replicator.newer'")]
)
async def test_a_job_of_a_newer_version_is_left_to_agents_that_know_it(
    shared: str, caplog: pytest.LogCaptureFixture, column: str, value: str
) -> None:
    """Also where it was in the hands of an agent that is gone."""
    agent, job = LightAgent("a"), works(1, shards=1)[0]
    agent.gate.set()
    with psycopg.connect(shared, autocommit=True) as connection:

        def found(query: str) -> object:
            return connection.execute(query.encode()).fetchall()

        async with joined(shared, agent, works=False):
            await agent.fleet.defer([job])
            change = f"UPDATE procrastinate_jobs SET status = 'doing', {column} = {value}"  # noqa: S608  see above
            connection.execute(change.encode())
            (lost,) = connection.execute("SELECT id, args FROM procrastinate_jobs").fetchall()
            agent.fleet.begin()
            left = "SELECT count(*) FROM procrastinate_jobs WHERE status = 'todo' AND scheduled_at > now() + interval '20 s'"
            await until(lambda: found(left) == [(1,)])
            assert found("SELECT count(*) FROM procrastinate_jobs") == [(1,)]
            (kept,) = connection.execute("SELECT id, args, lock FROM procrastinate_jobs").fetchall()
            assert kept[0] > lost[0]
            assert {**kept[1], "takeovers": 0} == {**lost[1], "takeovers": 0}
            assert kept[2] == job.lock
            # An agent of this version that wants the same has it done whole: whatever the newer one wanted is in that.
            if column == "args":
                await agent.fleet.defer([replace_work(job, whole=False, repositories={"app": None})])
                connection.execute("UPDATE procrastinate_jobs SET scheduled_at = NULL")
                await until(lambda: len(agent.did) == 1)
                assert agent.did[0].whole
                assert "is of another version of replicator" in caplog.text


async def test_what_was_noted_of_rules_that_are_gone_is_forgotten(shared: str) -> None:
    agent = LightAgent("a")
    async with joined(shared, agent, works=False, times=replace(QUICK, maintenance=0.2)):
        for rule in ("gone", "here"):
            await agent.fleet.note_failures(rule, ["fra"], 1)
        with psycopg.connect(shared, autocommit=True) as connection:
            connection.execute(
                "UPDATE fleet_facts SET at = now() - interval '8 days' WHERE key = 'failures gone'"
            )
            await until(
                lambda: connection.execute("SELECT key FROM fleet_facts").fetchall() == [("failures here",)]
            )
