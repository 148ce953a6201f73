"""An agent that outlives its processes: started, killed and started again at one address, with one log."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.acceptance.program import Program

START_SECONDS: Final = 60.0
END_SECONDS: Final = 45.0
"""A drain takes 25 s at most, commands around runs 5 more, and this machine is shared."""
TURN_SECONDS: Final = 0.02


@dataclass(frozen=True)
class Usage:
    """What a process uses."""

    memory_bytes: int
    descriptors: int
    sockets: int
    threads: int


class Daemon:
    """`replicator run` with its stderr in a file, so that nobody has to read along."""

    def __init__(
        self, program: Program, log: Path, url: str, environ: Mapping[str, str] | None = None
    ) -> None:
        self._program = program
        self._log = log
        self._port = int(url.rpartition(":")[2])
        self._environ = dict(environ or {})
        self._process: asyncio.subprocess.Process | None = None

    @property
    def log(self) -> str:
        """Everything said so far, by all its processes."""
        return self._log.read_text(errors="replace")

    @property
    def _running(self) -> asyncio.subprocess.Process:
        assert self._process is not None
        return self._process

    async def start(self) -> None:
        """Returns when it listens."""
        with self._log.open("ab") as stderr:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "replicator",
                "run",
                cwd=self._program.folder,
                env=self._program._environ() | {"PYTHONWARNINGS": "always::ResourceWarning"} | self._environ,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=stderr,
            )
        async with asyncio.timeout(START_SECONDS):
            while not await self._listens():
                assert self._running.returncode is None, self.log[-4000:]
                await asyncio.sleep(TURN_SECONDS)

    def send(self, number: signal.Signals) -> None:
        self._running.send_signal(number)

    async def end(self, number: signal.Signals) -> int:
        """Sends the signal; the exit code."""
        self.send(number)
        async with asyncio.timeout(END_SECONDS):
            return await self._running.wait()

    async def kill(self) -> None:
        """Ends it, where it still lives."""
        if self._process is not None and self._process.returncode is None:
            await self.end(signal.SIGKILL)

    def usage(self) -> Usage:
        """As the kernel counts."""
        place = Path("/proc", str(self._running.pid))
        status = dict(line.split(":", 1) for line in (place / "status").read_text().splitlines())
        targets = [_target(path) for path in (place / "fd").iterdir()]
        return Usage(
            memory_bytes=int(status["VmRSS"].split()[0]) * 1024,
            descriptors=len(targets),
            sockets=sum(target.startswith("socket:") for target in targets),
            threads=int(status["Threads"]),
        )

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            return False
        writer.close()
        await writer.wait_closed()
        return True


def _target(path: Path) -> str:
    try:
        return str(path.readlink())
    except FileNotFoundError:  # closed since it was listed
        return ""
