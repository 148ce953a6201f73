"""The first minutes: `init`, what `check` says next, and completion, as a shell asks for it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.shell_completion import BashComplete

from replicator.cli.program import cli
from replicator.demo.images import image, load
from tests.acceptance.program import Program, rule
from tests.acceptance.terminal import in_terminal
from tests.fakes.process import require
from tests.fakes.registry import FakeRegistry


@dataclass
class World:
    program: Program
    hub: FakeRegistry
    fra: FakeRegistry

    @property
    def given(self) -> list[str]:
        return ["--source", self.hub.url, "--destination", self.fra.url, "--repository", "platform/**"]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with FakeRegistry() as hub, FakeRegistry() as fra:
        load(hub.store, "platform/app", "v1", image("v1"))
        yield World(Program(tmp_path), hub, fra)


async def test_init_writes_a_config_that_works_at_once(world: World) -> None:
    state = {"XDG_STATE_HOME": str(world.program.folder), "XDG_CACHE_HOME": str(world.program.folder)}
    ended = await world.program("init", *world.given)
    assert ended.code == 0
    assert "wrote replicator.toml" in ended.stderr
    assert "next: replicator plan" in ended.stderr  # it was checked
    assert (await world.program("sync", environ=state)).code == 0
    assert "v1" in world.fra.store.content("platform/app").tags


async def test_init_replaces_no_file_unless_forced(world: World) -> None:
    path = world.program.folder / "replicator.toml"
    path.write_text("mine")
    refused = await world.program("init", *world.given)
    assert (refused.code, path.read_text()) == (2, "mine")
    assert "--force" in refused.stderr
    assert (await world.program("init", *world.given, "--force", "--no-check")).code == 0
    assert path.read_text() != "mine"


async def test_init_prints_for_pipes_and_refuses_what_is_no_config(world: World) -> None:
    printed = await world.program("init", *world.given, "--print")
    assert printed.code == 0
    assert f'url = "{world.hub.url}"' in printed.stdout
    assert not (world.program.folder / "replicator.toml").exists()
    wrong = await world.program("init", *world.given, "--interval", "soon", "--print")
    assert wrong.code == 2
    assert "interval" in wrong.stderr
    assert (await world.program("init", "--print")).code == 2


async def test_init_that_meets_a_closed_registry_suggests_a_login(world: World) -> None:
    dark = "http://127.0.0.1:9"
    ended = await world.program("init", "--source", dark, "--destination", world.fra.url)
    assert ended.code == 1
    assert "docker login 127.0.0.1:9" in ended.stderr
    assert "then run replicator check again" in ended.stderr


async def test_init_names_known_registries(world: World) -> None:
    printed = await world.program(
        "init", "--source", "ghcr.io", "--destination", "quay.io", "--destination", "/srv/mirror", "--print"
    )
    assert printed.code == 0
    for told in (
        "[site.ghcr]",
        "[site.quay]",
        "[site.mirror]",
        "docs/registries/quay.md",
        "file:///srv/mirror",
    ):
        assert told in printed.stdout


async def test_init_does_not_wait_for_answers_in_a_pipe_and_asks_in_a_terminal(world: World) -> None:
    piped = await world.program("init")
    assert piped.code == 2
    assert "--source is required: stdin is not a terminal" in piped.stderr
    shown = await in_terminal(
        world.program, "init", *world.given[:4], "--no-check", keys="platform/**\n10m\n", columns=80
    )
    assert shown.code == 0
    text = (world.program.folder / "replicator.toml").read_text()
    assert 'repositories = ["platform/**"]' in text
    assert '"10m"' in text


async def test_missing_config_names_init_and_demo(world: World) -> None:
    ended = await world.program("plan")
    assert ended.code == 2
    assert "replicator init" in ended.stderr
    assert "replicator demo" in ended.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_completion_is_a_script(world: World, shell: str) -> None:
    ended = await world.program("completion", shell)
    assert ended.code == 0
    assert "_REPLICATOR_COMPLETE" in ended.stdout


COMPLETED = [
    ("sync --rule ", {"platform"}),
    ("sync --destination ", {"fra"}),
    ("plan --rule pl", {"platform"}),
    ("export --rule ", {"platform"}),
    ("why --at ", {"fra"}),
    ("why hub/p", {"hub/platform/app"}),
    ("where f", {"fra/platform/app"}),
    ("inspect ", {"hub/platform/app", "fra/platform/app"}),
    ("list h", {"hub"}),
    ("list hub pl", {"platform/app"}),
    ("list fra ", {"platform/app"}),
    ("diff ", {"fra", "hub"}),
    ("diff hub ", {"fra", "hub"}),
    ("diff hub fra ", {"platform/app"}),
    ("import in.tar ", {"fra", "hub"}),
    ("inventory ", {"fra", "hub"}),
    ("serve ", {"fra", "hub"}),
    ("search x --missing-at f", {"fra"}),
    ("wh", {"where", "why"}),
    ("sync --rule no", set()),
]


def completed(line: str) -> set[str]:
    *words, last = line.split(" ")
    found = BashComplete(cli, {}, "replicator", "_REPLICATOR_COMPLETE").get_completions(words, last)
    return {each.value for each in found}


async def test_names_of_the_config_are_completed(world: World) -> None:
    path = world.program.write_config({"hub": world.hub.url, "fra": world.fra.url}, rule())
    assert (await world.program("sync")).code == 0
    for line, found in COMPLETED:
        assert await asyncio.to_thread(completed, f"-c {path} {line}") == found, line


async def test_files_and_folders_are_left_to_the_shell() -> None:
    def kinds(*words: str) -> list[str]:
        found = BashComplete(cli, {}, "replicator", "_REPLICATOR_COMPLETE").get_completions(list(words), "x")
        return [each.type for each in found]

    nowhere = ("-c", "/nowhere/replicator.toml")
    for line in (("sync", "--images"), ("import",), ("images",), ("export", "--rule", "a"), ("-c",)):
        assert kinds(*nowhere, *line) == ["file"], line
    assert await asyncio.to_thread(kinds, *nowhere, "serve") == ["dir"]


BASH = """
source <(replicator completion bash)
COMP_WORDS=(replicator sync --rule pl) COMP_CWORD=3
_replicator_completion replicator pl --rule
echo "found=${COMPREPLY[*]}"
"""
FISH = """
replicator completion fish | source
echo found=(complete --do-complete "replicator sync --rule pl")
"""
ZSH = """
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "PS1=; autoload -Uz compinit; compinit -u -D; source <(replicator completion zsh)"
zpty -w -n shell $'replicator sync --rule pl\t\n'
zpty -r -m shell line '*rule platform*' && echo found=platform
"""


@pytest.mark.parametrize(("shell", "script"), [("bash", BASH), ("fish", FISH), ("zsh", ZSH)])
async def test_shell_completes_with_the_script(world: World, shell: str, script: str) -> None:
    require(shell)
    world.program.write_config({"hub": world.hub.url, "fra": world.fra.url}, rule())
    command = world.program.folder / "replicator"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m replicator "$@"\n')
    command.chmod(0o755)
    environ = world.program._environ()
    process = await asyncio.create_subprocess_exec(
        shell,
        "-c",
        script,
        cwd=world.program.folder,
        env=environ | {"PATH": f"{world.program.folder}:{environ['PATH']}"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        stdin=asyncio.subprocess.DEVNULL,
    )
    stdout, stderr = await process.communicate()
    assert b"found=platform" in stdout.splitlines(), stderr


async def test_completion_without_a_config_is_empty_and_silent(world: World) -> None:
    asked = {
        "_REPLICATOR_COMPLETE": "bash_complete",
        "COMP_WORDS": "replicator sync --rule ",
        "COMP_CWORD": "3",
    }
    ended = await world.program(environ=asked)
    assert (ended.stdout.strip(), ended.stderr) == ("", "")
