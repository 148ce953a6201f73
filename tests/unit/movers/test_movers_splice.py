from __future__ import annotations

import contextlib
import hashlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.movers.body import Body, Length, Truncated
from replicator.movers.connection import Connection
from replicator.movers.splice import Bounds, Moved, move

FOR_EVER = 3600.0


class Ends:
    """A body of `length` bytes, and a connection that it is moved to, with the other ends of both."""

    def __init__(self, length: int) -> None:
        ours, self.sender = socket.socketpair()
        other, self.receiver = socket.socketpair()
        self.connection = Connection(ours)
        self.outlet = Connection(other)
        self.body = Body(self.connection, Length(length), lambda: memoryview(bytearray(10)), 0.01)
        self.shown = hashlib.sha256()
        self.counts: list[int] = []
        self.moved = threading.Event()

    def show(self, data: memoryview) -> None:
        self.shown.update(data)
        self.moved.set()

    @contextmanager
    def sending(self, size: int) -> Iterator[None]:
        """Has a thread send so many bytes to the body, until the context ends."""
        thread = threading.Thread(target=self._send, args=(size,))
        thread.start()
        try:
            yield
        finally:
            self.connection.close()
            thread.join()

    def _send(self, size: int) -> None:
        with contextlib.suppress(OSError):
            self.sender.sendall(bytes(size))

    def move(self, most: int, *, size: int = 100, patience: float = FOR_EVER) -> Moved:
        return move(
            self.body,
            self.outlet,
            memoryview(bytearray(size)),
            Bounds(most, FOR_EVER, patience),
            show=self.show,
            moved=self.counts.append,
        )


@contextmanager
def ends(length: int) -> Iterator[Ends]:
    made = Ends(length)
    try:
        yield made
    finally:
        made.connection.close()
        made.outlet.close()
        made.sender.close()
        made.receiver.close()


@given(st.binary(min_size=2, max_size=2_000), st.integers(1, 300), st.data())
def test_moves_what_it_may_shows_all_of_it_and_leaves_the_rest_where_it_is(
    data: bytes, size: int, drawn: st.DataObject
) -> None:
    most = drawn.draw(st.integers(1, len(data)))
    with ends(len(data)) as here:
        here.sender.sendall(data)
        moved = here.move(most, size=size)
        assert not moved.rest
        assert sum(here.counts) == most
        assert len(here.counts) == 1, "little is told once"
        assert here.receiver.recv(3_000) == data[:most]
        assert here.shown.digest() == hashlib.sha256(data[:most]).digest()
        left = b""
        while piece := here.body.next():
            left += piece
        assert left == data[most:]


def test_the_failure_of_the_body_is_for_who_reads_next() -> None:
    with ends(100) as here:
        here.sender.sendall(b"x" * 60)
        here.sender.close()
        assert not here.move(90).rest
        assert here.counts == [60]
        assert here.receiver.recv(100) == b"x" * 60
        with pytest.raises(Truncated):
            here.body.next()


def test_the_failure_of_the_outlet_is_for_who_writes_next() -> None:
    with ends(100) as here:
        here.sender.sendall(b"x" * 100)
        here.receiver.close()
        moved = here.move(90)
        assert moved.rest
        assert not here.outlet.send(moved.rest), "it closed: whoever asks for its answer hears that"


def test_an_answer_ends_it_and_what_was_received_is_the_rest() -> None:
    with ends(100) as here:
        here.sender.sendall(b"x" * 100)
        here.receiver.sendall(b"HTTP/1.1 413 Too Large\r\n\r\n")
        moved = here.move(90, size=50)
        assert moved.rest == b"x" * 50
        assert here.counts == [50]
        assert here.outlet.head().startswith(b"HTTP/1.1 413")
        assert here.body.next() == b"x" * 10


@pytest.mark.parametrize("silent", ["source", "destination"])
def test_silence_of_either_side_ends_it(silent: str) -> None:
    size = 4_000_000
    with ends(size) as here, here.sending(50 if silent == "source" else size):
        moved = here.move(size - 1, size=size // 2, patience=0.01)
        assert bool(moved.rest) == (silent == "destination")
        assert sum(here.counts) < size - 1


@pytest.mark.parametrize("waiting_for", ["source", "destination"])
def test_aborted_the_thread_ends_without_another_byte_from_either_side(waiting_for: str) -> None:
    size = 8_000_000
    with ends(size) as here, here.sending(50 if waiting_for == "source" else size):
        moving = threading.Thread(target=here.move, args=(size - 1,), kwargs={"size": 50})
        moving.start()
        here.moved.wait()
        (here.connection if waiting_for == "source" else here.outlet).abort()
        moving.join()
