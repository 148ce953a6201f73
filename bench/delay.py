"""A link that takes its time: forwards TCP with a delay each way, in order, at any bandwidth.

Run as a process of its own: `python -m bench.delay LISTEN_PORT TARGET_PORT SECONDS`.
"""

from __future__ import annotations

import asyncio
import sys

HOST = "127.0.0.1"
READ_BYTES = 256 * 1024
IN_FLIGHT = 1024
"""Reads that may be on the way in one direction of one connection."""


class Link:
    """Forwards each connection to a port, every byte `delay_seconds` after it came."""

    def __init__(self, target_port: int, delay_seconds: float) -> None:
        self._target_port = target_port
        self._delay = delay_seconds

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carries one connection until both sides have closed, or one is lost.

        The kernel has accepted already, so the round trip of the handshake is made up for here.
        """
        await asyncio.sleep(2 * self._delay)
        far_reader, far_writer = await asyncio.open_connection(HOST, self._target_port)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._carry(reader, far_writer))
                group.create_task(self._carry(far_reader, writer))
        except* OSError:
            pass  # a lost connection is lost at both ends
        finally:
            writer.close()
            far_writer.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(IN_FLIGHT)
        clock = asyncio.get_running_loop().time

        async def receive() -> None:
            while True:
                data = await reader.read(READ_BYTES)
                await on_the_way.put((clock() + self._delay, data))
                if not data:
                    return

        async def deliver() -> None:
            while True:
                due, data = await on_the_way.get()
                if (left := due - clock()) > 0:
                    await asyncio.sleep(left)
                if not data:
                    writer.write_eof()
                    return
                writer.write(data)
                await writer.drain()

        async with asyncio.TaskGroup() as group:
            group.create_task(receive())
            group.create_task(deliver())


async def main(listen_port: int, target_port: int, delay_seconds: float) -> None:
    """Serves until the process is ended."""
    link = Link(target_port, delay_seconds)
    server = await asyncio.start_server(link.serve, HOST, listen_port, backlog=1024)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
