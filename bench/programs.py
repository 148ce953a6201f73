"""Programs that are run for what they leave behind, not for how long they take."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.peers import find


def program(name: str) -> str:
    """Our own beside this Python, the peers pinned or on the PATH."""
    return str(Path(sys.executable).with_name(name)) if name == "replicator" else find(name)


async def finished(argv: Sequence[str], folder: Path, seconds: float) -> None:
    """Runs a command in a folder, its home too, and returns when it has ended, however, or its time is over."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "DOCKER_CONFIG": str(folder / ".docker"),
        "REGISTRY_AUTH_FILE": str(folder / ".docker" / "config.json"),
    }
    silent = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        program(argv[0]), *argv[1:], stdin=silent, stdout=silent, stderr=silent, env=environment, cwd=folder
    )
    try:
        async with asyncio.timeout(seconds):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
