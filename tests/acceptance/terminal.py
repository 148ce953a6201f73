"""A pseudo-terminal of some width, and what it shows."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import re
import struct
import sys
import termios
from collections.abc import Mapping
from dataclasses import dataclass

from tests.acceptance.program import Program

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
_COLOURS = re.compile(r"\x1b\[(?:[0-9]+;)*(?:[349][0-7]|38|48|10[0-7])(?:;[0-9]+)*m")


@dataclass(frozen=True)
class Shown:
    """All that was written to the terminal, and the exit code."""

    code: int
    raw: str

    @property
    def lines(self) -> list[str]:
        """Every line that was ever drawn, without escape sequences."""
        return [line for line in re.split(r"[\r\n]+", _ESCAPES.sub("", self.raw)) if line.strip()]

    @property
    def has_colours(self) -> bool:
        return _COLOURS.search(self.raw) is not None


async def in_terminal(
    program: Program,
    *arguments: str,
    columns: int = 80,
    rows: int = 24,
    environ: Mapping[str, str] | None = None,
    resize_to: int | None = None,
    keys: str = "",
) -> Shown:
    """Runs the program in a terminal, with `keys` typed beforehand.

    With `resize_to`, the terminal becomes so wide as soon as something was shown.
    """
    leader, follower = pty.openpty()
    _size(leader, rows, columns)
    os.write(leader, keys.encode())
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "replicator",
        *arguments,
        cwd=program.folder,
        env=program._environ() | {"TERM": "xterm-256color", "LANG": "C.UTF-8"} | dict(environ or {}),
        stdin=follower,
        stdout=follower,
        stderr=follower,
    )
    os.close(follower)
    read = asyncio.create_task(asyncio.to_thread(_read, leader, resize_to, rows))
    try:
        async with asyncio.timeout(60):
            code = await process.wait()
            return Shown(code, (await read).decode(errors="replace"))
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        os.close(leader)


def _read(leader: int, resize_to: int | None, rows: int) -> bytes:
    told = bytearray()
    while True:
        try:
            data = os.read(leader, 65536)
        except OSError:  # EIO: nobody has the terminal open any more
            return bytes(told)
        if not data:
            return bytes(told)
        told += data
        if resize_to is not None:
            _size(leader, rows, resize_to)
            resize_to = None


def _size(terminal: int, rows: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
