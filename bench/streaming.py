"""A source of blobs that no memory holds, and a destination that throws them away.

Run as a process of its own: `python -m bench.streaming REPOSITORY TAG BLOBS BYTES`. Prints the URLs of both and the
image's digest once all is ready: computing the digests takes a pass over all bytes.
"""

from __future__ import annotations

import asyncio
import sys

from tests.fakes.streaming import StreamingFake


async def main(repository: str, tag: str, blobs: int, size: int) -> None:
    """Serves until the process is ended."""
    async with StreamingFake.serve() as fake:
        image = fake.image(repository, tag, blobs, size)
        print(fake.source.url, fake.destination.url, image.digest, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
