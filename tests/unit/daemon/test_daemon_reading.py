"""A reload that hangs in a file does not keep the process from ending."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import asyncio, pathlib, signal, sys
from replicator.daemon.reading import ConfigReader

async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    read = lambda: pathlib.Path(sys.argv[1]).read_bytes()  # nobody ever writes to it
    reloading = asyncio.create_task(ConfigReader().read(read))
    await asyncio.sleep(0)
    signal.raise_signal(signal.SIGTERM)
    await stop.wait()
    reloading.cancel()

asyncio.run(main())
print("ended")
"""


def test_sigterm_ends_the_process_while_a_reload_hangs(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "hangs")
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "hangs")],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "ended\n", "")
