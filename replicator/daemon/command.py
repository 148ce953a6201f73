"""A command of somebody else's: argument list, no shell, JSON on stdin, a time limit."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from typing import Final

_KEPT_BYTES: Final = 2_000
_GRACE_SECONDS: Final = 0.5
_OURS: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
"""Between the service manager and this process alone."""


async def run_command(argv: Sequence[str], data: bytes, seconds: float) -> str | None:
    """Runs the command to its end; None where it succeeded, else what went wrong, in one line.

    One that takes longer than `seconds`, and one whose caller is cancelled, is killed with its whole process group.
    It need not read its stdin; its stdout goes nowhere, and of its stderr the end is kept for the message.
    """
    environ = {name: value for name, value in os.environ.items() if name not in _OURS}
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=environ,
            start_new_session=True,
        )
    except OSError as error:
        return f"{argv[0]} cannot be run: {error.strerror or error}"
    told = bytearray()
    try:
        async with asyncio.timeout(seconds):
            await _talk(process, data, told)
    except TimeoutError:
        return f"{argv[0]} took longer than {seconds:g} s and was killed"
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        _close(process)
    if process.returncode == 0:
        return None
    code = process.returncode or 0
    how = f"ended with {code}" if code > 0 else f"was killed by signal {-code}"
    words = " ".join(told.decode(errors="replace").split())
    return f"{argv[0]} {how}{f': {words}' if words else ''}"


async def _talk(process: asyncio.subprocess.Process, data: bytes, told: bytearray) -> None:
    """Until the process has ended. What it left behind may hold its stderr open: that is not waited for long."""
    listening = asyncio.create_task(_listen(process, told))
    feeding = asyncio.create_task(_feed(process, data))
    try:
        await process.wait()
        await asyncio.wait({listening}, timeout=_GRACE_SECONDS)
    finally:
        for task in (listening, feeding):
            task.cancel()
        await asyncio.wait({listening, feeding})


async def _feed(process: asyncio.subprocess.Process, data: bytes) -> None:
    assert process.stdin is not None  # noqa: S101  # it was asked for
    with contextlib.suppress(OSError):  # who does not read it need not
        process.stdin.write(data)
        await process.stdin.drain()
        process.stdin.close()


async def _listen(process: asyncio.subprocess.Process, told: bytearray) -> None:
    assert process.stderr is not None  # noqa: S101  # it was asked for
    while chunk := await process.stderr.read(4096):
        told += chunk
        del told[:-_KEPT_BYTES]


def _close(process: asyncio.subprocess.Process) -> None:
    """Closes the pipes, which a grandchild may keep open at its end."""
    transport = getattr(process, "_transport", None)
    if transport is not None:
        transport.close()
