"""The program as a process, with what it cost: time, memory, and how long its event loop stood still."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.acceptance.program import ROOT

_PROBED = """
import asyncio, json, os, sys, time
from pathlib import Path
stalls = []
async def probe():
    last = time.monotonic()
    while True:
        await asyncio.sleep(0.02)
        now = time.monotonic()
        if now - last > 0.2:
            stalls.append((last, now))
        last = now
def probed(run):
    def inner(self, main, **more):
        async def both():
            task = asyncio.ensure_future(probe())
            try:
                return await main
            finally:
                task.cancel()
        return run(self, both(), **more)
    return inner
asyncio.Runner.run = probed(asyncio.Runner.run)
from replicator.cli.program import run
code = 1
try:
    code = run(sys.argv[1:])
finally:
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if "VmHWM" in line)
    Path(os.environ["COST"]).write_text(json.dumps({"stalls": stalls, "peak": peak * 1024}))
sys.exit(code)
"""


Span = tuple[float, float]
"""From and until, by `time.monotonic`, which is the same in all processes."""


class Machine:
    """When the machine itself stood still, or gave us no turn: then so did the program, which cannot help it."""

    def __init__(self) -> None:
        self._stalls: list[Span] = []
        self._over = threading.Event()
        self._watching = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._watching.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watching.join()

    def longest(self, stalls: Sequence[Span]) -> float:
        """Seconds of the longest of these stalls of the program, without those of the machine."""
        return max((until - since - self._still(since, until) for since, until in stalls), default=0.0)

    def _still(self, since: float, until: float) -> float:
        return sum(max(0.0, min(until, end) - max(since, begin)) for begin, end in self._stalls)

    def _watch(self) -> None:
        last = time.monotonic()
        while not self._over.wait(0.02):
            now = time.monotonic()
            if now - last > 0.2:
                self._stalls.append((last, now))
            last = now


@dataclass(frozen=True)
class Cost:
    """How a process ended, and at what cost: `seconds` in all, `stall` of its loop at most, `peak` bytes of memory."""

    code: int
    stdout: str
    stderr: str
    seconds: float
    stall: float
    peak: int

    @property
    def text(self) -> str:
        """All that a person sees."""
        return self.stdout + self.stderr


class Probed:
    """The program as a process that serves. What it says is read all the time, so that it never waits for us."""

    def __init__(self, process: asyncio.subprocess.Process, cost: Path, machine: Machine) -> None:
        self._process = process
        self._machine = machine
        self._cost = cost
        self._began = time.monotonic()
        self._lines: list[str] = []
        self._said = asyncio.Condition()
        self._reading = asyncio.create_task(self._read())

    async def says(self, text: str) -> str:
        """The first line of stderr with this text, once it is there."""
        async with asyncio.timeout(30), self._said:
            while True:
                found = next((line for line in self._lines if text in line), None)
                if found is not None:
                    return found
                assert not self._reading.done(), f"{text!r} was never said, but: {''.join(self._lines)}"
                await self._said.wait()

    async def end(self) -> Cost:
        """Asks it to end, and returns what it said and cost."""
        self._process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            await self._reading
            code = await self._process.wait()
        text = "".join(self._lines)
        assert "Traceback" not in text, text[-5000:]
        told = json.loads(self._cost.read_text())
        return Cost(
            code,
            "",
            text,
            time.monotonic() - self._began,
            self._machine.longest(told["stalls"]),
            told["peak"],
        )

    async def kill(self) -> None:
        """Ends it where it still lives."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await self._reading

    async def _read(self) -> None:
        assert self._process.stderr is not None
        while line := await self._process.stderr.readline():
            async with self._said:
                self._lines.append(line.decode())
                self._said.notify_all()
        async with self._said:
            self._said.notify_all()


@asynccontextmanager
async def probed(folder: Path, *arguments: str) -> AsyncIterator[Probed]:
    """The program, running in the folder until the context is left."""
    cost = folder / "cost.json"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _PROBED,
        *arguments,
        cwd=folder,
        env=_environ(folder, cost),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    with Machine() as machine:
        running = Probed(process, cost, machine)
        try:
            yield running
        finally:
            await running.kill()


def _environ(folder: Path, cost: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(ROOT), "COST": str(cost)}


async def measured(
    folder: Path, *arguments: str, within: float, environ: Mapping[str, str] | None = None
) -> Cost:
    """Runs the program in the folder. It must end within that many seconds, and never show a traceback."""
    cost = folder / "cost.json"
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _PROBED,
        *arguments,
        cwd=folder,
        env=_environ(folder, cost) | dict(environ or {}),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    with Machine() as machine:
        try:
            async with asyncio.timeout(within):
                stdout, stderr = await process.communicate()
        except TimeoutError:
            process.kill()
            stdout, stderr = await process.communicate()
            raise AssertionError(f"still running after {within} s: {stderr.decode()[-2000:]}") from None
    assert b"Traceback" not in stderr, stderr.decode()
    told = json.loads(cost.read_text())
    assert process.returncode is not None
    return Cost(
        process.returncode,
        stdout.decode(),
        stderr.decode(),
        time.monotonic() - began,
        machine.longest(told["stalls"]),
        told["peak"],
    )
