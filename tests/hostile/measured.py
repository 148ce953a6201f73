"""The program as a process, with what it cost: time, memory, and how long its event loop stood still."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.acceptance.program import ROOT

_PROBED = """
import asyncio, json, os, sys, time
from pathlib import Path
longest = 0.0
async def probe():
    global longest
    last = time.monotonic()
    while True:
        await asyncio.sleep(0.02)
        now = time.monotonic()
        longest, last = max(longest, now - last - 0.02), now
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
from replicator.cli.__main__ import run
code = 1
try:
    code = run(sys.argv[1:])
finally:
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if "VmHWM" in line)
    Path(os.environ["COST"]).write_text(json.dumps({"stall": longest, "peak": peak * 1024}))
sys.exit(code)
"""


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


async def measured(folder: Path, *arguments: str, within: float, extra: Sequence[str] = ()) -> Cost:
    """Runs the program in the folder. It must end within that many seconds, and never show a traceback."""
    cost = folder / "cost.json"
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(ROOT), "COST": str(cost)}
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _PROBED,
        *arguments,
        cwd=folder,
        env=environ,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
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
        told["stall"],
        told["peak"],
    )
