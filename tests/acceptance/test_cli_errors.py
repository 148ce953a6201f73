from pathlib import Path

import msgspec
import pytest

from replicator.demo.images import image, load
from replicator.state.locks import hold_rules
from tests.acceptance.program import Program, rule
from tests.fakes.auth import Basic
from tests.fakes.registry import FakeRegistry

NOBODY = "http://127.0.0.1:1"


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


async def test_every_problem_of_a_config_is_told_on_a_line_of_its_own(program: Program) -> None:
    program.write_config(
        {"hub": NOBODY}, rule(destinations=["nowhere"], more='colour = "red"\ninterval = "often"')
    )
    for command in ("sync", "plan", "check", "status"):
        ended = await program(command)
        assert (ended.code, ended.stdout) == (2, "")
        lines = ended.stderr.splitlines()
        assert all(line.startswith("error: ") for line in lines)
        for word in ("nowhere", "colour", "often"):
            assert sum(word in line for line in lines) >= 1


async def test_failure_to_start_is_json_on_stdout_too(program: Program) -> None:
    ended = await program("sync", "--json")
    assert ended.code == 2
    assert ended.json["version"] == 1
    assert ended.json["outcome"] == "failed"
    assert ended.stderr == f"error: {ended.json['error']}\n"
    assert "no config file found" in ended.json["error"]


async def test_json_log_stays_json_when_starting_fails(program: Program) -> None:
    ended = await program("--log-format", "json", "sync")
    assert [msgspec.json.decode(line)["level"] for line in ended.stderr.splitlines()] == ["error"]


async def test_names_that_the_config_does_not_have_are_told_at_once(program: Program) -> None:
    program.write_config({"hub": NOBODY, "fra": NOBODY}, rule())
    ended = await program("sync", "--rule", "plattform", "--destination", "farnkfurt")
    assert ended.code == 2
    assert ended.stderr.splitlines() == [
        "error: --rule plattform: unknown rule; the config has platform",
        "error: --destination farnkfurt: unknown site; the config has fra, hub",
    ]


async def test_rule_that_another_process_runs_is_left_to_it(program: Program) -> None:
    program.write_config({"hub": NOBODY, "fra": NOBODY}, rule())
    with hold_rules(program.folder / "state.db", ["platform"]):
        ended = await program("sync")
    assert (ended.code, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: rule 'platform' is being run by process ")


@pytest.mark.parametrize("command", ["sync", "plan", "status"])
async def test_state_that_is_no_database_is_refused_and_left_alone(program: Program, command: str) -> None:
    program.write_config({"hub": NOBODY, "fra": NOBODY}, rule())
    state = program.folder / "state.db"
    state.write_bytes(b"not a database" * 1000)
    ended = await program(command)
    assert (ended.code, ended.stdout) == (2, "")
    assert str(state) in ended.stderr
    assert state.read_bytes() == b"not a database" * 1000


async def test_site_that_cannot_be_reached_is_a_failure_in_the_report(program: Program) -> None:
    program.write_config({"hub": NOBODY, "fra": NOBODY}, rule())
    ended = await program("sync", "--json")
    assert ended.code == 1
    assert ended.json["outcome"] == "failed"
    [destination] = ended.json["rules"][0]["destinations"]
    assert {failure["site"] for failure in destination["failures"]} == {"hub"}


async def test_metrics_file_without_a_folder_is_refused_before_anything_runs(program: Program) -> None:
    ended = await program("sync", "--metrics-file", str(program.folder / "absent" / "replicator.prom"))
    assert (ended.code, ended.stdout) == (2, "")
    assert "absent is not a directory" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["copy", "UPPER/case", "host.example/x"], "UPPER"),
        (["copy", "a/b:", "host.example/x"], "tag"),
        (["copy", "a/b", "host.example/x@sha256:" + "0" * 64], "a digest is not allowed here"),
        (["copy", "a/b:v1", "host.example/x", "--all-tags"], "--all-tags"),
        (["copy", "a/b", "host.example/x", "--platform", "arm64"], "OS/ARCHITECTURE"),
        (["list", "localhost:1", "Upper"], "Upper"),
    ],
)
async def test_bad_references_are_usage_errors_that_name_the_part(
    program: Program, arguments: list[str], says: str
) -> None:
    ended = await program(*arguments)
    assert (ended.code, ended.stdout) == (2, "")
    assert says in ended.stderr


@pytest.mark.parametrize("source", ["hub", "fra"])
async def test_wrong_password_is_named_by_check_and_sync_alike(program: Program, source: str) -> None:
    """Also where it first shows in a listing of repositories, which some registries refuse to everybody."""
    async with FakeRegistry() as hub, FakeRegistry(auth=Basic({"mirror": "right"})) as fra:
        load(hub.store, "platform/app", "v1", image("v1"))
        config = rule() if source == "hub" else rule(destinations=["hub"]).replace('"hub"\n', '"fra"\n', 1)
        login = '[site.fra]\nusername = "mirror"\npassword = { env = "PASSWORD" }\n'
        path = program.write_config({"hub": hub.url, "fra": fra.url}, config)
        path.write_text(path.read_text().replace("[site.fra]\n", login))
        for command in ("check", "sync"):
            ended = await program(command, environ={"PASSWORD": "wrong"})
            assert ended.code == 1
            assert "fra: log in: 401 Unauthorized" in ended.stdout
            assert "the registry refuses this username or password" in ended.stdout
            assert "without wildcards" not in ended.stdout
