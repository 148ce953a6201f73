"""Memory for pieces of bodies, used again: a fresh MiB for each would cost as much as receiving it."""

from __future__ import annotations

from threading import Lock
from typing import Final

_MAX_TRACKED: Final = 64
_MAX_FREE: Final = 24
"""Free ones beyond these are given back."""


class Buffers:
    """Buffers of `size` bytes, for any number of threads. One is free again once no memoryview of it is left.

    Python itself tells: a bytearray that a memoryview refers to cannot change its length.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._all: list[bytearray] = []
        self._taking = Lock()

    def take(self) -> memoryview:
        """The whole of a free buffer; its content is anything."""
        with self._taking:
            return self._take()

    def clear(self) -> None:
        """Forgets all; those in use live on until they are free."""
        with self._taking:
            self._all.clear()

    def _take(self) -> memoryview:
        free = [buffer for buffer in self._all if _is_free(buffer)]
        if not free:
            buffer = bytearray(self._size)
            _is_free(buffer)  # makes the room for the length to change in
            if len(self._all) < _MAX_TRACKED:
                self._all.append(buffer)
            return memoryview(buffer)
        if len(free) > _MAX_FREE:
            self._all = [
                buffer for buffer in self._all if not any(buffer is each for each in free[_MAX_FREE:])
            ]
        return memoryview(free[0])


def _is_free(buffer: bytearray) -> bool:
    try:
        buffer.append(0)
    except BufferError:
        return False
    buffer.pop()
    return True
