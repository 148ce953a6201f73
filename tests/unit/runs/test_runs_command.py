from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.config.settings import RunCommands
from replicator.engine.context import RunScope
from replicator.engine.result import DestinationResult, RuleResult
from replicator.events import Event, Events, Failed, RunEnded, Warned
from replicator.flow.clock import SystemClock
from replicator.policy.pattern import Glob
from replicator.policy.rule import RepositorySelection, Rule
from replicator.runs.command import clean_environment, run_command
from replicator.runs.hooks import RunHooks
from replicator.state.store import open_state

RULE = Rule("r", "hub", ("fra",), RepositorySelection((Glob.parse("**"),)))


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


async def test_a_command_gets_json_on_stdin_and_its_arguments_without_a_shell(tmp_path: Path) -> None:
    told, given = tmp_path / "told", "$HOME; rm *"
    code = f"import sys, pathlib; pathlib.Path({str(told)!r}).write_text(sys.argv[1] + sys.stdin.read())"
    assert await run_command((*python(code), given), b'{"a":1}', 20) is None
    assert told.read_text() == given + '{"a":1}'


async def test_what_went_wrong_is_one_line_with_the_end_of_stderr() -> None:
    code = "import sys; sys.stderr.write('x' * 100000 + '\\nno room\\n'); sys.exit(3)"
    problem = await run_command(python(code), b"", 20)
    assert problem is not None
    assert "ended with 3" in problem
    assert problem.endswith("no room")
    assert len(problem) < 3000
    assert "\n" not in problem


async def test_a_command_that_cannot_be_run_is_named() -> None:
    problem = await run_command(("/nowhere/command",), b"", 20)
    assert problem == "/nowhere/command cannot be run: No such file or directory"


async def test_a_command_need_not_read_what_it_is_told() -> None:
    assert await run_command(python("pass"), b"x" * 10_000_000, 20) is None


FORKS = (
    "import os, sys, time, pathlib\n"
    "child = os.fork()\n"
    "if child: pathlib.Path(sys.argv[1]).write_text(f'{os.getpid()} {child}')\n"
    "time.sleep(600)\n"
)


def is_gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


async def until(is_so: Callable[[], bool]) -> None:
    for _ in range(1000):
        if is_so():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came to that")


async def until_gone(pids: list[int]) -> None:
    await until(lambda: all(is_gone(pid) for pid in pids))


async def test_one_that_takes_too_long_is_killed_with_all_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    problem = await run_command((*python(FORKS), str(pids)), b"", 5)
    assert problem == f"{sys.executable} took longer than 5 s and was killed"
    await until_gone([int(pid) for pid in pids.read_text().split()])


async def test_one_whose_caller_is_cancelled_is_killed(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    task = asyncio.create_task(run_command((*python(FORKS), str(pids)), b"", 600))
    await until(lambda: pids.exists() and bool(pids.read_text()))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until_gone([int(pid) for pid in pids.read_text().split()])


async def test_a_child_left_in_the_background_is_not_waited_for(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    code = (
        "import os, sys, time, pathlib\n"
        "child = os.fork()\n"
        "pathlib.Path(sys.argv[1]).write_text(str(child)) if child else time.sleep(600)"
    )
    async with asyncio.timeout(30):
        assert await run_command((*python(code), str(pid)), b"", 20) is None
    child = int(pid.read_text())
    assert not is_gone(child)
    os.kill(child, signal.SIGKILL)
    await until_gone([child])


async def test_commands_get_the_harmless_part_of_our_environment_and_what_is_added(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("NOTIFY_SOCKET", "AWS_SECRET_ACCESS_KEY", "DOCKER_AUTH_CONFIG", "HTTPS_PROXY", "LC_ALL"):
        monkeypatch.setenv(name, "C")
    code = "import os, sys; sys.exit(str(sorted(os.environ.keys() - {'HOME', 'PATH', 'LC_CTYPE'})))"
    monkeypatch.setattr("os.environ", {name: os.environ[name] for name in os.environ if name in KEPT})
    problem = await run_command(python(code), b"", 20, env={"MINE": "x"})
    assert problem is not None
    assert problem.endswith("['LC_ALL', 'MINE']")


KEPT = {
    "PATH",
    "HOME",
    "NOTIFY_SOCKET",
    "AWS_SECRET_ACCESS_KEY",
    "DOCKER_AUTH_CONFIG",
    "HTTPS_PROXY",
    "LC_ALL",
}
_VARIABLE = st.from_regex(r"[A-Z]{1,6}(_[A-Z]{1,8}){0,3}", fullmatch=True)


@given(st.dictionaries(_VARIABLE, st.text(max_size=5)))
def test_no_variable_passes_that_is_not_on_the_list(environ: dict[str, str]) -> None:
    words = ("SECRET", "TOKEN", "PASSWORD", "KEY", "AUTH", "CREDENTIAL", "PROXY", "AWS", "DOCKER")
    assert not [name for name in clean_environment(environ) if any(word in name for word in words)]


def test_it_is_the_same_on_uvloop() -> None:
    """Its transports are of other classes than asyncio's; the command once waited for the end of its stdin for ever."""
    uvloop = pytest.importorskip("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code = "import sys; sys.exit(len(sys.stdin.read()) != 1_000_000)"
        assert runner.run(run_command(python(code), b"x" * 1_000_000, 20)) is None


# --- around runs ---


NARROWED = RunScope({"app": frozenset({"v2", "v1"}), "all": None})


async def ran(
    path: Path, commands: RunCommands, scope: RunScope | None = None
) -> tuple[RuleResult | None, list[Event], str]:
    events, seen = Events(), list[Event]()
    events.subscribe(seen.append)
    state = await open_state(path / "state.db", clock=SystemClock())
    try:
        hooks = RunHooks({"r": commands}, state=state, events=events, clock=SystemClock())
        result = await hooks.before(RULE, ["fra"], scope)
        if result is None:
            await hooks.after(RULE, RuleResult("r", "hub", [DestinationResult("fra")]))
        standings = await state.standings(["r"])
        return result, seen, standings[0].last_error if standings else ""
    finally:
        await state.aclose()


async def test_commands_are_told_what_is_going_to_run_and_what_became_of_it(tmp_path: Path) -> None:
    def writes(name: str) -> tuple[str, ...]:
        return python(
            f"import sys, pathlib; pathlib.Path({str(tmp_path / name)!r}).write_text(sys.stdin.read())"
        )

    commands = RunCommands(before=writes("before"), after=writes("after"))
    result, seen, _ = await ran(tmp_path, commands, NARROWED)
    assert (result, seen) == (None, [])
    assert msgspec.json.decode((tmp_path / "before").read_bytes()) == {
        "version": 1,
        "event": "before",
        "rule": "r",
        "source": "hub",
        "destinations": ["fra"],
        "repositories": {"app": ["v1", "v2"], "all": None},
    }
    after = msgspec.json.decode((tmp_path / "after").read_bytes())
    assert after["event"] == "after"
    assert after["report"]["destinations"][0]["outcome"] == "ok"


async def test_a_failing_before_prevents_the_run_and_everybody_can_see_why(tmp_path: Path) -> None:
    result, seen, last_error = await ran(tmp_path, RunCommands(before=python("raise SystemExit(4)")))
    assert result is not None
    (destination,) = result.destinations
    assert destination.outcome == "failed"
    assert "ended with 4" in destination.failures[0].cause
    assert [type(event) for event in seen] == [Failed, RunEnded]
    assert "ended with 4" in last_error


async def test_a_failing_before_that_is_not_required_is_a_warning(tmp_path: Path) -> None:
    commands = RunCommands(before=python("raise SystemExit(4)"), before_required=False)
    result, seen, last_error = await ran(tmp_path, commands)
    assert (result, last_error) == (None, "")
    assert [type(event) for event in seen] == [Warned]


async def test_a_failing_after_is_a_warning(tmp_path: Path) -> None:
    result, seen, _ = await ran(tmp_path, RunCommands(after=python("raise SystemExit(4)")))
    assert result is None
    assert [type(event) for event in seen] == [Warned]
    assert os.path.basename(sys.executable) in str(seen[0])  # noqa: PTH119
