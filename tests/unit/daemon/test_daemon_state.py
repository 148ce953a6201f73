"""What only an agent asks of the state."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from replicator.engine.result import Outcome
from replicator.errors import StateError, StateInUse
from replicator.ports import RunRow
from replicator.state.locks import hold_rules, hold_state
from replicator.state.recall import Notified
from replicator.state.store import StoredState, open_state
from tests.fakes.clock import FakeClock


@pytest.fixture
async def state(tmp_path: Path) -> AsyncIterator[StoredState]:
    state = await open_state(tmp_path / "state.db", clock=FakeClock())
    yield state
    await state.aclose()


def row(outcome: Outcome, error: str = "", in_step: int = 0) -> RunRow:
    return RunRow(
        "r",
        "fra",
        1.0,
        2.0,
        outcome,
        complete_look=outcome == "ok",
        in_step=in_step,
        held=0,
        failed=0,
        error=error,
    )


async def test_paused_rules_and_what_was_told_survive_a_restart(tmp_path: Path, state: StoredState) -> None:
    told = Notified("chat", "r", "fra", "failing")
    for rule in ("a", "b", "a"):
        await state.set_paused(rule, True)
    await state.set_paused("b", False)
    for each in (told, told, Notified("chat", "r", "fra", "stale")):
        await state.tell(each)
    await state.untell(Notified("chat", "r", "fra", "stale"))
    await state.aclose()
    again = await open_state(tmp_path / "state.db", clock=FakeClock())
    assert await again.paused() == {"a"}
    assert await again.told() == {told}
    await again.aclose()


async def test_a_state_for_reading_only_cannot_pause(tmp_path: Path) -> None:
    state = await open_state(tmp_path / "state.db", clock=FakeClock(), read_only=True)
    with pytest.raises(StateError, match="reading only"):
        await state.set_paused("a", True)
    assert await state.paused() == frozenset()
    await state.aclose()


async def test_an_interrupted_run_does_not_pass_for_a_recovery(state: StoredState) -> None:
    """A drained agent once told of a recovery at each restart: the run that was cut short had met with no failure."""
    await state.close_run(row("failed", "hub: list tags: down", in_step=7))
    standing = await state.close_run(row("interrupted"))
    assert (standing.last_error, standing.in_step) == ("hub: list tags: down", 7)
    standing = await state.close_run(row("ok", in_step=8))
    assert (standing.last_error, standing.in_step) == ("", 8)


def test_an_agent_holds_the_state_against_all_and_says_who_it_is(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with hold_state(path):
        with pytest.raises(StateInUse) as caught, hold_state(path):
            pass
        assert caught.value.pid == os.getpid()
        with pytest.raises(StateInUse, match=r"--remote") as caught, hold_rules(path, ["r"]):
            pass
        assert caught.value.pid == os.getpid()
    with hold_rules(path, ["r"]):
        with pytest.raises(StateInUse) as caught, hold_state(path):
            pass
        assert caught.value.pid is None  # a `sync` is no agent, and there may be several
    with hold_state(path):
        pass
