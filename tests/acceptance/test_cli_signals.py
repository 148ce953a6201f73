import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from replicator.demo.images import image, load
from tests.acceptance.program import ROOT, Program, rule
from tests.fakes.registry import Exchange, FakeRegistry


@dataclass
class Held:
    """An action that holds a request until it is let go."""

    begun: asyncio.Event = field(default_factory=asyncio.Event)
    let_go: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, exchange: Exchange) -> web.StreamResponse:
        self.begun.set()
        await self.let_go.wait()
        return await exchange.proceed()


@dataclass
class World:
    program: Program
    hub: FakeRegistry
    fra: FakeRegistry
    held: Held


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A hub whose blobs are held back."""
    async with FakeRegistry() as hub, FakeRegistry() as fra:
        for number in range(40):  # more than are copied at once, so that a drain leaves some
            load(hub.store, f"platform/app{number}", "v1", image(f"app{number}", 1))
        held = Held()
        hub.fault("GET", "/blobs/", held, times=None)
        program = Program(tmp_path)
        program.write_config({"hub": hub.url, "fra": fra.url}, rule())
        yield World(program, hub, fra, held)
        held.let_go.set()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
async def test_first_signal_lets_running_blobs_end_and_saves_the_state(
    world: World, number: signal.Signals, code: int
) -> None:
    async with world.program.started("sync", "--json") as running:
        await world.held.begun.wait()
        running.signal(number)
        await running.says(f"{number.name}: finishing transfers")
        world.held.let_go.set()
        ended = await running.end()
    assert ended.code == code
    assert ended.json["outcome"] == "interrupted"
    assert not world.fra.store.dangling()
    moved = {entry.path for entry in world.hub.find("GET", "/blobs/", status=200)}
    assert moved
    assert len(moved) < 80

    carried_on = await world.program("sync", "--json")
    assert carried_on.code == 0
    assert carried_on.json["totals"]["tags"]["failed"] == 0
    for number_of in range(40):
        assert world.fra.store.content(f"platform/app{number_of}").tags.keys() == {"v1"}
    # nothing that was through before the end is read a second time
    assert all(world.hub.count("GET", path, status=200) == 1 for path in moved)


@pytest.mark.parametrize("command", ["copy", "sync"])
async def test_what_is_done_whole_when_a_signal_comes_is_no_interrupted_run(
    world: World, command: str
) -> None:
    one = rule().replace("platform/**", "platform/app0")
    world.program.write_config({"hub": world.hub.url, "fra": world.fra.url}, one)
    hub, fra = (registry.url.removeprefix("http://") for registry in (world.hub, world.fra))
    places = [f"{hub}/platform/app0:v1", f"{fra}/platform/app0"] if command == "copy" else []
    async with world.program.started(command, *places, "--json") as running:
        await world.held.begun.wait()
        running.signal(signal.SIGINT)
        await running.says("SIGINT: finishing transfers")
        world.held.let_go.set()
        ended = await running.end()
    assert (ended.code, ended.json["outcome"]) == (130, "ok")
    assert world.fra.store.content("platform/app0").tags.keys() == {"v1"}


async def test_second_signal_ends_it_at_once(world: World) -> None:
    async with world.program.started("sync") as running:
        await world.held.begun.wait()
        running.signal(signal.SIGTERM)
        await running.says("SIGTERM: finishing transfers")
        running.signal(signal.SIGTERM)
        ended = await running.end()
    assert (ended.code, ended.stdout) == (143, "")
    assert not world.held.let_go.is_set()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
async def test_command_that_only_looks_ends_at_the_first_signal(
    world: World, number: signal.Signals, code: int
) -> None:
    listing = Held()
    world.hub.fault("GET", "_catalog", listing, times=None)
    async with world.program.started("list", "hub") as running:
        await listing.begun.wait()
        running.signal(number)
        ended = await running.end()
    listing.let_go.set()
    assert (ended.code, ended.stdout) == (code, "")


LOSING = """
import os, signal, weakref
from replicator.cli import __main__ as entry, program
class Lock: pass
def run(arguments):
    lock = Lock()
    # as the import system looks after its locks: what a callback raises is printed and ignored
    watch = weakref.ref(lock, lambda _: os.kill(os.getpid(), signal.SIGINT))
    del lock
    return 0
program.run = run
entry.main()
"""
IMPORTING = """
import os, signal, sys
class Interrupted:
    def find_spec(self, name, path, target=None):
        if name == "click":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupted())
from replicator.cli.__main__ import main
main()
"""


@pytest.mark.parametrize("program", [LOSING, IMPORTING], ids=["in a callback", "in an import"])
async def test_sigint_during_the_imports_ends_the_program_without_a_word(
    tmp_path: Path, program: str
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        stderr=asyncio.subprocess.PIPE,
    )
    _, stderr = await process.communicate()
    assert (process.returncode, stderr) == (-signal.SIGINT, b"")
