from pathlib import Path

import pytest

from replicator import __version__
from tests.acceptance.program import Program
from tests.fakes.modules import loaded_by

HEAVY = (
    "aiobotocore",
    "aiohttp",
    "asyncio",
    "msgspec",
    "prometheus_client",
    "pydantic",
    "rich",
    "sqlalchemy",
    "uvloop",
)


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


@pytest.mark.parametrize("arguments", [["--version"], ["--help"]])
def test_nothing_heavy_is_imported_to_answer_at_once(arguments: list[str]) -> None:
    imported = loaded_by(f"from replicator.cli.program import run\nassert run({arguments!r}) == 0")
    assert "click" in imported
    assert imported.isdisjoint(HEAVY)


BUDGETS = {
    # a command: modules that its own import may load in all, and libraries that must not be among them
    "sync": (440, {"aiohttp", "sqlalchemy", "yaml", "rich", "prometheus_client"}),
    "plan": (435, {"aiohttp", "sqlalchemy", "yaml", "rich", "prometheus_client"}),
    "copy": (560, {"pydantic", "sqlalchemy", "yaml", "rich", "prometheus_client"}),
    "status": (590, {"aiohttp", "yaml", "rich", "prometheus_client"}),
    "check": (570, {"sqlalchemy", "yaml", "rich", "prometheus_client"}),
    "run": (980, {"aiobotocore", "yaml", "rich"}),
    "serve": (670, {"sqlalchemy", "yaml", "rich", "aiobotocore"}),
}


@pytest.mark.parametrize("command", BUDGETS)
def test_commands_import_no_more_than_they_need(command: str) -> None:
    most, never = BUDGETS[command]
    imported = loaded_by(f"import replicator.cli.program, replicator.cli.{command}")
    assert imported.isdisjoint(never)
    assert len(imported) <= most


def test_the_source_is_asked_before_the_engine_and_the_library_of_the_state_are_imported(
    tmp_path: Path,
) -> None:
    config = Program(tmp_path).write_config(
        {"hub": "http://127.0.0.1:1", "fra": "http://127.0.0.1:1"},
        '[[rule]]\nname = "all"\nsource = "hub"\ndestinations = ["fra"]\nrepositories = ["app"]\n',
    )
    imported = loaded_by(
        f"""
import sys, threading
from replicator.cli import wiring
from replicator.cli.program import run
from replicator.sites.registry.auth import Authenticator

answered, asked = threading.Event(), []
ping, rest = Authenticator._ping, wiring._import_the_rest

async def noted(self):
    asked.append(set(sys.modules))
    try:
        return await ping(self)
    finally:
        answered.set()

def after_the_answer():
    assert answered.wait(20)
    rest()

Authenticator._ping, wiring._import_the_rest = noted, after_the_answer
assert run(["sync", "-c", {str(config)!r}]) == 1
[modules] = asked  # nor does the run itself ask again: the failure was its own first request's
assert modules.isdisjoint({"sqlalchemy", "replicator.engine.engine", "stamina", "prometheus_client", "rich", "yaml"})
assert len(modules) <= 667, len(modules)
"""
    )
    assert "sqlalchemy" in imported
    assert "replicator.trust.verify" not in imported  # no rule has `trust`


async def test_output_that_cannot_be_written_is_a_failure(program: Program) -> None:
    ended = await program("--help", prefix=("sh", "-c", 'exec "$@" >/dev/full', "sh"))
    assert ended.code == 1
    assert "No space left on device" in ended.stderr


FULL = {"stdout": ">/dev/full", "stderr": "2>/dev/full", "both": ">/dev/full 2>/dev/full"}


@pytest.mark.parametrize("full", FULL)
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("config", "schema", "--json"), 1),
        (("config", "schema", "--unknown"), 2),
        (("config", "show", "--json", "-c", "missing.toml"), 2),
    ],
    ids=["success", "usage", "config"],
)
async def test_a_full_disk_costs_neither_the_exit_code_nor_a_traceback(
    program: Program, full: str, arguments: tuple[str, ...], code: int
) -> None:
    ended = await program(*arguments, prefix=("sh", "-c", f'exec "$@" {FULL[full]}', "sh"))
    assert ended.code == (0 if code == 1 and full == "stderr" else code)
    assert "Traceback" not in ended.stderr


async def test_a_full_disk_costs_not_the_exit_code_when_the_traceback_is_wanted(program: Program) -> None:
    arguments = ("config", "show", "-vv", "-c", "missing.toml")
    ended = await program(*arguments, prefix=("sh", "-c", 'exec "$@" 2>/dev/full', "sh"))
    assert ended.code == 2


CLOSED = {"stdin": "<&-", "stdout": ">&-", "stderr": "2>&-", "all": "<&- >&- 2>&-"}


@pytest.mark.parametrize("closed", CLOSED)
@pytest.mark.parametrize("arguments", [("--version",), ("status", "--json")], ids=["version", "status"])
async def test_a_closed_standard_stream_is_no_failure(
    program: Program, closed: str, arguments: tuple[str, ...]
) -> None:
    """Its number must not go to a file or a socket, either."""
    program.write_config(
        {"hub": "http://127.0.0.1:1", "fra": "http://127.0.0.1:1"},
        '[[rule]]\nname = "all"\nsource = "hub"\ndestinations = ["fra"]\nrepositories = ["app"]\n',
    )
    ended = await program(*arguments, prefix=("sh", "-c", f'exec "$@" {CLOSED[closed]}', "sh"))
    assert (ended.code, ended.stderr) == (0, "")
    assert bool(ended.stdout) is (closed in {"stdin", "stderr"})


@pytest.mark.parametrize("arguments", [["--version"], ["sync", "--version"], ["config", "show", "--version"]])
async def test_version_is_told_wherever_it_is_asked(program: Program, arguments: list[str]) -> None:
    ended = await program(*arguments)
    assert (ended.code, ended.stdout, ended.stderr) == (0, f"replicator {__version__}\n", "")


async def test_help_names_every_command(program: Program) -> None:
    ended = await program("--help")
    assert ended.code == 0
    for name in ("sync", "plan", "copy", "check", "list", "status", "config", "demo"):
        assert f"\n  {name} " in ended.stdout


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["sync", "--nonsense"], ["copy", "one"], ["--log-format", "xml", "sync"], []]
)
async def test_usage_errors_exit_2_and_leave_stdout_empty(program: Program, arguments: list[str]) -> None:
    ended = await program(*arguments)
    assert (ended.code, ended.stdout) == (2, "")
    assert "Usage: replicator" in ended.stderr


async def test_options_count_before_and_after_the_command(program: Program) -> None:
    config = program.write_config({"hub": "http://127.0.0.1:1"}, "", "elsewhere.toml")
    before = await program("--json", "--config", str(config), "status")
    after = await program("status", "-c", str(config), "--json")
    assert (before.code, before.json) == (0, {"version": 1, "rules": []})
    assert after == before


async def test_shell_completion_offers_commands_and_options(program: Program) -> None:
    script = await program(environ={"_REPLICATOR_COMPLETE": "bash_source"})
    assert (script.code, "_REPLICATOR_COMPLETE=bash_complete" in script.stdout) == (0, True)
    commands = await program(
        environ={"_REPLICATOR_COMPLETE": "bash_complete", "COMP_WORDS": "replicator s", "COMP_CWORD": "1"}
    )
    assert commands.stdout.split() == [
        "plain,sync",
        "plain,search",
        "plain,status",
        "plain,state",
        "plain,serve",
    ]
    options = await program(
        environ={
            "_REPLICATOR_COMPLETE": "bash_complete",
            "COMP_WORDS": "replicator plan --ex",
            "COMP_CWORD": "2",
        }
    )
    assert options.stdout.split() == ["plain,--exit-code"]


async def test_help_of_copy_keeps_its_table(program: Program) -> None:
    ended = await program("copy", "--help")
    assert "    oci:DIR[:TAG]                          one OCI image layout\n" in ended.stdout
    assert "\\b" not in ended.stdout


@pytest.mark.parametrize("place", ["./mirror", "../mirror"])
async def test_directory_in_place_of_a_site_is_told_how_to_be_written(program: Program, place: str) -> None:
    ended = await program("list", place)
    assert ended.code == 2
    assert "write a directory as file:///PATH" in ended.stderr
