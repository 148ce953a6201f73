"""Locks, held by real processes."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import pytest

from replicator.errors import StateError, StateInUse
from replicator.state.locks import hold_replacement, hold_rules, hold_state
from replicator.state.paths import rule_lock, state_lock
from tests.fakes.modules import loaded_by

HOLD_RULES = """
import sys
from pathlib import Path
from replicator.state.locks import hold_replacement, hold_rules, hold_state
with hold_rules(Path(sys.argv[1]), sys.argv[2:]):
    print("held", flush=True)
    sys.stdin.read()
"""
HOLD_STATE = """
import fcntl, os, sys
with open(sys.argv[1], "w") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    file.write(f"{os.getpid()}\\n")
    file.flush()
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(script: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A process that holds locks until the context ends."""
    with subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "state.db"


def test_a_rule_is_run_by_one_process_whose_pid_the_other_is_told(path: Path) -> None:
    with (
        holder(HOLD_RULES, str(path), "platform", "tools") as process,
        pytest.raises(StateInUse, match=rf"rule 'tools' is being run by process {process.pid}\b") as caught,
        hold_rules(path, ["other", "tools"]),
    ):
        raise AssertionError("held twice")
    assert caught.value.pid == process.pid


def test_other_rules_run_beside(path: Path) -> None:
    with holder(HOLD_RULES, str(path), "platform"), hold_rules(path, ["tools"]):
        pass


def test_what_was_held_is_given_back_when_one_is_refused(path: Path) -> None:
    with holder(HOLD_RULES, str(path), "platform"):
        with pytest.raises(StateInUse), hold_rules(path, ["another", "platform"]):
            raise AssertionError("held twice")
        with hold_rules(path, ["another"]):
            pass


def test_a_killed_process_holds_nothing(path: Path) -> None:
    with holder(HOLD_RULES, str(path), "platform") as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        with hold_rules(path, ["platform"]):
            assert rule_lock(path, "platform").read_text() == f"{os.getpid()}\n"


def test_locks_end_with_the_context_and_their_files_are_harmless(path: Path) -> None:
    for _ in range(2):
        with hold_rules(path, ["platform", "platform"]):
            pass
    assert rule_lock(path, "platform").exists()


def test_locks_end_when_the_context_is_left_by_an_error(path: Path) -> None:
    with pytest.raises(RuntimeError), hold_rules(path, ["platform"]):
        raise RuntimeError
    with hold_rules(path, ["platform"]):
        pass


def test_one_process_does_not_run_a_rule_twice_either(path: Path) -> None:
    with hold_rules(path, ["platform"]):
        with pytest.raises(StateInUse) as caught, hold_rules(path, ["platform"]):
            raise AssertionError("held twice")
        assert caught.value.pid == os.getpid()


def test_an_agent_keeps_every_rule_from_being_run(path: Path) -> None:
    path.parent.mkdir()
    with (
        holder(HOLD_STATE, str(state_lock(path))) as process,
        pytest.raises(StateInUse, match=rf"in use by process {process.pid}: .*--remote"),
        hold_rules(path, ["platform"]),
    ):
        raise AssertionError("held beside an agent")


def test_a_holder_that_left_no_pid_is_another_process(path: Path) -> None:
    with hold_rules(path, ["platform"]):
        rule_lock(path, "platform").write_text("")
        with pytest.raises(StateInUse, match="by another process") as caught, hold_rules(path, ["platform"]):
            raise AssertionError("held twice")
    assert caught.value.pid is None


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "a/b", "with space", "Größe", "x" * 500, ".", "%2F", "\udcff", "a\0b"]
)
def test_any_name_of_a_rule_makes_a_file_beside_the_state(path: Path, name: str) -> None:
    with hold_rules(path, [name]):
        assert rule_lock(path, name).parent == path.parent
        assert rule_lock(path, name).exists()


def test_two_rules_never_share_a_file(path: Path) -> None:
    names = ["a/b", "a%2Fb", "a b", "a+b", "A", "a", "x" * 500, "x" * 501, "x" * 40]
    assert len({rule_lock(path, name) for name in names}) == len(names)
    assert state_lock(path) not in {rule_lock(path, name) for name in names}


def test_the_folder_is_made_for_its_owner_alone(path: Path) -> None:
    with hold_rules(path, ["platform"]):
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert rule_lock(path, "platform").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("blocked", ["folder", "file"])
def test_a_lock_that_cannot_be_made_is_a_state_error(tmp_path: Path, blocked: str) -> None:
    if blocked == "folder":
        (tmp_path / "state").write_text("")
    else:
        rule_lock(tmp_path / "state" / "db", "platform").mkdir(parents=True)
    with (
        pytest.raises(StateError, match="state") as caught,
        hold_rules(tmp_path / "state" / "db", ["platform"]),
    ):
        raise AssertionError("held")
    assert not isinstance(caught.value, StateInUse)


def test_locks_and_lag_cost_no_database() -> None:
    loaded = loaded_by("import replicator.state.locks, replicator.state.memory, replicator.policy.lag")
    assert "replicator.state.locks" in loaded
    assert loaded.isdisjoint({"sqlalchemy", "sqlite3"})


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_lock_file_that_may_not_be_written_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    with (
        pytest.raises(StateError, match=r"state\.db\.lock: .*writable for the user.*agent\.state"),
        hold_rules(tmp_path / "state.db", ["r"]),
    ):
        pass


def test_a_lock_file_that_cannot_be_made_for_another_reason_gives_no_advice_about_rights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, "the disk is full")

    monkeypatch.setattr(os, "open", refuse)
    with (
        pytest.raises(StateError, match=r"state\.db\.lock: the disk is full$"),
        hold_state(tmp_path / "state.db"),
    ):
        raise AssertionError("held")


@pytest.mark.parametrize("hold", [hold_state, hold_replacement])
def test_a_file_system_without_locks_is_a_state_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hold: Callable[[Path], AbstractContextManager[None]]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StateError, match=r"^lock file .*\.lock: no locks here$"), hold(tmp_path / "state.db"):
        raise AssertionError("held")


def test_one_state_is_for_one_agent(path: Path) -> None:
    with hold_state(path):
        with pytest.raises(StateInUse, match="one state is for one agent") as caught, hold_state(path):
            raise AssertionError("held twice")
        assert caught.value.pid == os.getpid()
    with hold_state(path):
        pass


@pytest.mark.parametrize("error", [None, RuntimeError])
def test_the_pid_of_an_agent_that_has_ended_is_not_named(path: Path, error: type[Exception] | None) -> None:
    with suppress(RuntimeError), hold_state(path):
        if error is not None:
            raise error
    assert state_lock(path).read_bytes() == b""
    with hold_rules(path, ["platform"]):
        with pytest.raises(StateInUse, match="by another process") as caught, hold_state(path):
            raise AssertionError("held beside a sync")
        assert caught.value.pid is None


def test_a_full_disk_costs_only_the_pid(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "the disk is full")

    monkeypatch.setattr(os, "ftruncate", refuse)
    with hold_state(path), pytest.raises(StateInUse, match="by another process"), hold_state(path):
        raise AssertionError("held twice")
    with hold_state(path):
        pass
