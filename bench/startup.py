"""How long each program takes from its start to its first request."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time

from bench import servers
from bench.compare import Bench
from bench.measure import Usage
from bench.peers import Program, Task
from bench.rows import Row
from bench.servers import Endpoint

NAME = "startup"
REPEAT = 7
LIMIT_SECONDS = 20


async def startup(bench: Bench) -> list[Row]:
    """Starts each program towards a server that answers nothing, and ends it at the first bytes it sends."""
    folder = bench.folder / NAME
    folder.mkdir()
    seen: asyncio.Queue[float] = asyncio.Queue()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(1):
            seen.put_nowait(time.perf_counter())
        writer.close()

    port = servers.free_port()
    endpoint = Endpoint(port, folder, folder / "access.log")
    async with await asyncio.start_server(listen, servers.HOST, port):
        rows = []
        for program in bench.programs:
            runs = [await _first_request(program, endpoint, seen) for _ in range(bench.repeat or REPEAT)]
            rows.append(Row(NAME, program.name, runs))
            bench.tell(f"  {program.name}: {rows[-1].seconds:.3f} s")
    return rows


async def _first_request(program: Program, endpoint: Endpoint, seen: asyncio.Queue[float]) -> Usage:
    command = program.commands(Task(endpoint, [endpoint], ["bench/app"], endpoint.storage))[0]
    nowhere = asyncio.subprocess.DEVNULL
    started = time.perf_counter()
    running = await asyncio.create_subprocess_exec(
        *command.arguments,
        env={**os.environ, **command.environment},
        stdin=nowhere,
        stdout=nowhere,
        stderr=nowhere,
    )
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            at = await seen.get()
    finally:
        with contextlib.suppress(ProcessLookupError):
            running.kill()
        await running.wait()
    await asyncio.sleep(0.05)  # what it still had on the way arrives
    while not seen.empty():
        seen.get_nowait()
    return Usage(at - started, 0.0, 0)
