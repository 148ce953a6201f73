"""Memory does not grow with the size of what is copied."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.acceptance.program import ROOT
from tests.fakes.streaming import StreamingFake

LAYERS = 6
MEASURED = """
import sys
from pathlib import Path
from replicator.cli.program import run
code = run(sys.argv[1:])
print(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line))
sys.exit(code)
"""


async def test_memory_does_not_grow_with_the_size_of_blobs(tmp_path: Path) -> None:
    async with StreamingFake.serve() as fakes:
        small = await _peak(tmp_path, fakes, 1_000_000)
        large = await _peak(tmp_path, fakes, 40_000_000)
    assert large < small + LAYERS * 4_000_000, "each blob in hand may have a few buffers, whatever its size"


async def _peak(folder: Path, fakes: StreamingFake, size: int) -> int:
    """The most memory that the program had while it copied all layers of an image at once."""
    manifest = fakes.image("app", f"v{size}", LAYERS, size)
    source, destination = (each.url.removeprefix("http://") for each in (fakes.source, fakes.destination))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", MEASURED, "copy", f"{source}/app:v{size}", f"{destination}/app:v{size}"),
        cwd=ROOT,
        env={"HOME": str(folder), "PATH": ""},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    stdout, stderr = await process.communicate()
    assert process.returncode == 0, stderr.decode()
    assert fakes.destination.store.manifest("app", f"v{size}").digest == manifest.digest
    return int(stdout.split()[-1]) * 1024
