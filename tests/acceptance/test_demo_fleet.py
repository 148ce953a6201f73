"""`make demo-fleet`: it runs to its end, and explains as it goes."""

from __future__ import annotations

import asyncio
import sys

import pytest

from tests.acceptance.program import ROOT
from tests.postgres import program

SECONDS = 150.0
"""About 20 on an idle machine; its own waits are bounded, too."""


@pytest.mark.timeout(180)
async def test_the_demo_of_a_fleet_kills_an_agent_and_copies_everything() -> None:
    program("postgres")  # skips where there is none
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "scripts.demo_fleet",
        "--quick",
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(SECONDS):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    text = out.decode()
    assert process.returncode == 0, text + err.decode()
    steps = (
        "PostgreSQL is up",
        "1. Three agents start with one config",
        "2. 36 images are pushed to hub",
        "b, with fra, hub:",
        "3. Agent b is killed with -9",
        *(
            ["the others have taken over its shards:", ": apps -> fra: shard "]
            if "taken over" in text
            else []
        ),
        "4. The others finish",
        "a run of 32 shards by ",
        "fra has all 36 of 36 tags.",
    )
    at = 0
    for step in steps:  # in this order
        at = text.find(step, at)
        assert at >= 0, f"{step!r} is missing:\n{text}"
