"""A load: GETs over a number of kept connections. `python -m bench.load HOST PORT WIDTH COUNT FILE`, a path a line.

Prints JSON: seconds, requests, bytes. Ends with 1 where an answer is not 200.
"""

from __future__ import annotations

import itertools
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

BUFFER_BYTES = 1 << 20
LIMIT_SECONDS = 60


class BadAnswerError(Exception):
    """Something else than 200 with all of its body."""


class Connection:
    """A kept connection, with a buffer of its own."""

    def __init__(self, host: str, port: int) -> None:
        self._host = f"{host}:{port}"
        self._socket = socket.create_connection((host, port), LIMIT_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = memoryview(bytearray(BUFFER_BYTES))

    def get(self, path: str) -> int:
        """Gets it, throws it away and returns the body's size. Raises `BadAnswerError`."""
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: {self._host}\r\nAccept: */*\r\n\r\n".encode())
        filled = 0
        while (end := bytes(self._buffer[:filled]).find(b"\r\n\r\n")) < 0:
            received = self._socket.recv_into(self._buffer[filled:])
            if not received:
                raise BadAnswerError(f"{path}: the connection was closed")
            filled += received
        head = bytes(self._buffer[:end]).decode("latin-1").lower().split("\r\n")
        lengths = [line.partition(":")[2] for line in head if line.startswith("content-length:")]
        if " 200 " not in f"{head[0]} " or not lengths:
            raise BadAnswerError(f"{path}: {head[0]}")
        size = int(lengths[0])
        left = size - (filled - end - 4)
        while left:
            received = self._socket.recv_into(self._buffer, min(left, BUFFER_BYTES))
            if not received:
                raise BadAnswerError(f"{path}: {left} of {size} bytes did not come")
            left -= received
        return size

    def close(self) -> None:
        """Ends it."""
        self._socket.close()


def work(connection: Connection, paths: Iterator[str], sizes: list[int], wrong: list[str]) -> None:
    """Gets what is left of the paths."""
    try:
        for path in paths:
            sizes.append(connection.get(path))  # noqa: PERF401 - several threads, one list
    except (OSError, BadAnswerError) as error:
        wrong.append(str(error))
    finally:
        connection.close()


def main(host: str, port: int, width: int, count: int, paths: list[str]) -> int:
    """Runs the load; the connections are there before the clock starts."""
    connections = [Connection(host, port) for _ in range(width)]
    todo = itertools.islice(itertools.cycle(paths), count)  # `next` of an islice is one step under the GIL
    sizes: list[int] = []
    wrong: list[str] = []
    threads = [threading.Thread(target=work, args=(one, todo, sizes, wrong)) for one in connections]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "requests": len(sizes), "bytes": sum(sizes)}))
    for text in wrong:
        print(text, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    host, port, width, count, file = sys.argv[1:]
    sys.exit(main(host, int(port), int(width), int(count), Path(file).read_text().split()))
