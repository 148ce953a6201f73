"""The program as a user runs it: a process of its own, in a folder of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """Stdout, which must be one JSON value and nothing else."""
        return msgspec.json.decode(self.stdout)


@dataclass
class Running:
    """A process that has been started."""

    process: asyncio.subprocess.Process
    _stderr: list[str] = field(default_factory=list)

    async def says(self, text: str) -> str:
        """The first line of stderr from now on with this text."""
        assert self.process.stderr is not None
        while line := (await self.process.stderr.readline()).decode():
            self._stderr.append(line)
            if text in line:
                return line
        raise AssertionError(f"{text!r} was never said, but: {''.join(self._stderr)}")

    def signal(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        self.process.send_signal(number)

    async def end(self) -> Ended:
        """Waits for its end. No process may ever show a traceback."""
        stdout, stderr = await self.process.communicate()
        told = "".join(self._stderr) + stderr.decode()
        assert "Traceback" not in told, told
        assert self.process.returncode is not None
        return Ended(self.process.returncode, stdout.decode(), told)


@dataclass(frozen=True)
class Program:
    """Starts `python -m replicator` with `folder` as home and working directory."""

    folder: Path

    @asynccontextmanager
    async def started(
        self, *arguments: str, environ: Mapping[str, str] | None = None, prefix: Sequence[str] = ()
    ) -> AsyncIterator[Running]:
        """The running process, by `prefix` a command that runs it; killed at the end where it still lives."""
        process = await asyncio.create_subprocess_exec(
            *prefix,
            sys.executable,
            "-m",
            "replicator",
            *arguments,
            cwd=self.folder,
            env=self._environ() | dict(environ or {}),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            yield Running(process)
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()

    async def __call__(
        self, *arguments: str, environ: Mapping[str, str] | None = None, prefix: Sequence[str] = ()
    ) -> Ended:
        """Runs it to its end."""
        async with self.started(*arguments, environ=environ, prefix=prefix) as running:
            return await running.end()

    def write_config(self, sites: Mapping[str, str], rules: str, name: str = "replicator.toml") -> Path:
        """A config with these sites (name to URL) and rules, with state and cache in the folder."""
        text = f'[agent]\nstate = "sqlite:///{self.folder}/state.db"\ncache = {{ path = "{self.folder}/cache" }}\n'
        for site, url in sites.items():
            text += f'[site.{site}]\nurl = "{url}"\n'
        path = self.folder / name
        path.write_text(text + rules)
        return path

    def _environ(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "HOME": str(self.folder), "PYTHONPATH": str(ROOT)}


def rule(name: str = "platform", *, destinations: Sequence[str] = ("fra",), more: str = "") -> str:
    """A rule from `hub`, all repositories below `platform`."""
    listed = ", ".join(f'"{each}"' for each in destinations)
    return (
        f'[[rule]]\nname = "{name}"\nsource = "hub"\ndestinations = [{listed}]\n'
        f'repositories = ["platform/**"]\n{more}\n'
    )
