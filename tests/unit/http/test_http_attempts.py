"""Whose turn it is to have a password checked."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.http.attempts import FREE_FAILURES, MAX_DELAY_SECONDS, MAX_PEERS, Attempts, TooManyAttempts


class Stage:
    """Checks that end when `turns` says so."""

    def __init__(self, attempts: Attempts) -> None:
        self.attempts = attempts
        self.served: list[str] = []
        self.refused: list[str] = []
        self._go = asyncio.Semaphore(0)

    async def check(self, peer: str, user: str) -> None:
        try:
            async with self.attempts.turn(peer, user):
                self.served.append(f"{peer}/{user}")
                await self._go.acquire()
        except TooManyAttempts:
            self.refused.append(f"{peer}/{user}")

    async def begin(self, tasks: asyncio.TaskGroup, who: Iterable[tuple[str, str]]) -> None:
        for peer, user in who:
            tasks.create_task(self.check(peer, user))
        await self.settle()

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    def end(self, count: int) -> None:
        for _ in range(count):
            self._go.release()


async def test_addresses_and_their_users_take_turns() -> None:
    stage = Stage(Attempts(at_once=1, per_peer=10))
    async with asyncio.TaskGroup() as tasks:
        await stage.begin(tasks, [("a", "x")] * 4 + [("a", "y"), ("b", "z")])
        stage.end(6)
    assert stage.served == ["a/x", "a/x", "b/z", "a/y", "a/x", "a/x"]
    assert not stage.refused


async def test_a_flood_is_bounded_and_does_not_keep_out_others() -> None:
    stage = Stage(Attempts(at_once=2, per_peer=8))
    async with asyncio.TaskGroup() as tasks:
        await stage.begin(tasks, [("bad", "ann")] * 200)
        assert len(stage.refused) == 200 - 2 - 8
        await stage.begin(tasks, [("good", "ann"), ("bad", "ben")])
        assert stage.refused[-1] == "bad/ann"  # gives way to the other user of that address
        stage.end(4)
        await stage.settle()
        assert {"good/ann", "bad/ben"} <= set(stage.served[2:6])
        stage.end(20)


async def test_the_same_user_at_the_same_address_has_a_chance_in_a_flood() -> None:
    chances = 0
    for _ in range(60):
        stage = Stage(Attempts(at_once=1, per_peer=8))
        async with asyncio.TaskGroup() as tasks:
            await stage.begin(tasks, [("bad", "ann")] * 20)
            newcomer = tasks.create_task(stage.check("bad", "ann"))
            await stage.settle()
            chances += not newcomer.done()
            stage.end(30)
    assert chances > 30


async def test_a_flood_of_many_names_does_not_keep_those_in_line_from_their_turn() -> None:
    served = 0
    for _ in range(60):
        stage = Stage(Attempts(at_once=1, per_peer=8))
        async with asyncio.TaskGroup() as tasks:
            await stage.begin(tasks, [("bad", f"user{number}") for number in range(9)])
            await stage.begin(tasks, [("bad", "ann")])
            for number in range(9, 18):  # one comes for each that is served
                await stage.begin(tasks, [("bad", f"user{number}")])
                stage.end(1)
                await stage.settle()
            stage.end(30)
        served += "bad/ann" in stage.served
    assert served > 10


async def test_a_client_that_leaves_gives_up_its_turn() -> None:
    stage = Stage(Attempts(at_once=1, per_peer=8))
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(stage.check("a", "x"))
        await stage.settle()
        waiting = [tasks.create_task(stage.check("a", "y")) for _ in range(3)]
        await stage.settle()
        waiting[1].cancel()
        running.cancel()  # the turn passes on ...
        await asyncio.sleep(0)
        waiting[0].cancel()  # ... to one that leaves with it
        await stage.settle()
        stage.end(1)
    assert stage.served.count("a/y") in {1, 2}
    assert not stage.refused
    assert not stage.attempts._waiting
    assert stage.attempts._running == 0


@given(st.lists(st.tuples(st.sampled_from(["come", "leave", "end"]), st.integers(0, 5)), max_size=40))
def test_no_turn_is_lost_whoever_comes_and_leaves(steps: list[tuple[str, int]]) -> None:
    async def play() -> None:
        stage, tasks = Stage(Attempts(at_once=2, per_peer=3)), list[asyncio.Task[None]]()
        async with asyncio.TaskGroup() as group:
            for step, number in steps:
                if step == "come":
                    tasks.append(group.create_task(stage.check(str(number % 2), str(number % 3))))
                elif step == "leave" and tasks:
                    tasks[number % len(tasks)].cancel()
                else:
                    stage.end(1)
                for _ in range(number % 3):
                    await asyncio.sleep(0)
                assert 0 <= stage.attempts._running <= 2
            stage.end(len(steps))
        assert stage.attempts._running == 0
        assert not stage.attempts._waiting

    asyncio.run(play())


async def test_wrong_passwords_are_answered_later_and_later(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = Attempts(at_once=1, per_peer=1)
    now = 0.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
    delays = [attempts.failed("bad") for _ in range(40)]
    assert delays[:FREE_FAILURES] == [0.0] * FREE_FAILURES
    assert delays == sorted(delays)
    assert delays[-1] == MAX_DELAY_SECONDS
    assert attempts.failed("good") == 0.0
    now = 600.0
    assert attempts.failed("bad") == 0.0
    for number in range(MAX_PEERS + 10):
        attempts.failed(str(number))
    assert len(attempts._failures) == MAX_PEERS
