"""Runs commands and says what they cost: wall time, CPU seconds, peak memory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SAMPLE_SECONDS = 0.02
_PEAK = re.compile(rb"VmHWM:\s+(\d+) kB")


class CommandFailed(Exception):
    """A command ended with another exit code than 0; the message has its name and the last it said."""


@dataclass(frozen=True, slots=True)
class Command:
    """One program to run."""

    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Usage:
    """What a set of commands cost: wall seconds of all, CPU seconds of all, peak bytes of the largest one.

    `servers_cpu_seconds` is what the other processes of the bench took meanwhile: registries, links and stores.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    servers_cpu_seconds: float = 0.0


async def run(commands: Sequence[Command], log: Path, width: int = 1, limit_seconds: float = 900) -> Usage:
    """Runs the commands, `width` at a time; what they say goes to files beside `log`.

    Raises:
        CommandFailed: one of them failed, or all together took longer than `limit_seconds`.
    """
    slots = asyncio.Semaphore(width)
    usages: list[Usage] = []

    async def one(number: int, command: Command) -> None:
        async with slots:
            usages.append(await _run_one(command, log.with_suffix(f".{number}.log")))

    before, started = children_cpu_seconds(), time.perf_counter()
    try:
        async with asyncio.timeout(limit_seconds), asyncio.TaskGroup() as group:
            for number, command in enumerate(commands):
                group.create_task(one(number, command))
    except TimeoutError as error:
        raise CommandFailed(f"{commands[0].arguments[0]}: not done after {limit_seconds} s") from error
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return Usage(
        time.perf_counter() - started,
        sum(usage.cpu_seconds for usage in usages),
        max(usage.peak_bytes for usage in usages),
        children_cpu_seconds() - before,
    )


async def _run_one(command: Command, log: Path) -> Usage:
    started = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: ASYNC220  # asyncio's own would reap it, and keep its resource usage
            command.arguments,
            env={**os.environ, **command.environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    waiting = asyncio.create_task(asyncio.to_thread(os.wait4, process.pid, 0))
    peak = 0
    try:
        while not waiting.done():
            peak = max(peak, peak_bytes(process.pid))
            await asyncio.wait([waiting], timeout=SAMPLE_SECONDS)
    except asyncio.CancelledError:
        process.kill()
        await waiting
        process.returncode = -9
        raise
    _, status, resources = waiting.result()
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)  # Popen did not see it end
    if process.returncode:
        raise CommandFailed(
            f"{Path(command.arguments[0]).name} ended with {process.returncode}: {_last_words(log)}"
        )
    return Usage(seconds, resources.ru_utime + resources.ru_stime, peak)


def _last_words(log: Path) -> str:
    return log.read_text(errors="replace").strip()[-1500:]


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has had so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def children_cpu_seconds() -> float:
    """CPU time that all children of this process which are still running have had so far."""
    lists = (task / "children" for task in Path("/proc/self/task").iterdir())
    return sum(cpu_seconds(int(pid)) for children in lists for pid in children.read_text().split())


def peak_bytes(pid: int) -> int:
    """The most memory that a process has had at once so far; 0 where it has ended."""
    # Not ru_maxrss: the kernel hands the parent's size down to it through fork.
    with contextlib.suppress(OSError):
        match = _PEAK.search(Path(f"/proc/{pid}/status").read_bytes())
        if match:
            return int(match[1]) * 1024
    return 0
