from __future__ import annotations

import itertools
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.movers.body import Body, Chunked, Framing, Length, Truncated, UntilClose
from replicator.movers.buffers import Buffers
from replicator.movers.connection import MAX_HEAD_BYTES, MAX_INTERIM, Aborted, Connection, Malformed


@contextmanager
def _pair() -> Iterator[tuple[Connection, socket.socket]]:
    ours, theirs = socket.socketpair()
    with closing(Connection(ours)) as connection, theirs:
        yield connection, theirs


@contextmanager
def _saying(pieces: list[bytes], *, then_close: bool = True) -> Iterator[Connection]:
    """A connection whose other side says the pieces one after the other."""
    with _pair() as (connection, theirs):

        def say() -> None:
            for piece in pieces:
                theirs.sendall(piece)
            if then_close:
                theirs.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=say)
        thread.start()
        try:
            yield connection
        finally:
            connection.abort()
            thread.join()


def _pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(at)]


def _read(connection: Connection, framing: Framing, size: int = 64) -> bytes:
    body = Body(connection, framing, Buffers(size).take, 0.01)
    got = b""
    while piece := body.next():
        assert len(piece) <= size
        got += piece
    assert body.is_over
    return got


def _read_into(got: list[bytes], body: Body) -> None:
    while piece := body.next():
        got.append(bytes(piece))


def _chunked(data: bytes, cuts: list[int], extension: bytes = b"") -> bytes:
    chunks = (b"%x%s\r\n%s\r\n" % (len(piece), extension, piece) for piece in _pieces(data, cuts) if piece)
    return b"".join(chunks) + b"0\r\n\r\n"


CUTS = st.lists(st.integers(0, 10_000), max_size=6)


@given(st.binary(max_size=500), CUTS, CUTS, st.sampled_from([b"", b";name=value", b" "]))
def test_a_body_is_the_same_by_every_framing_and_in_whatever_pieces_it_comes(
    data: bytes, chunks: list[int], cuts: list[int], extension: bytes
) -> None:
    head = b"HTTP/1.1 200 OK\r\nX: y\r\n\r\n"
    framings: list[tuple[Framing, bytes, bytes]] = [
        (Length(len(data)), data, b"next"),
        (Chunked(), _chunked(data, chunks, extension), b"next"),
        (UntilClose(), data, b""),
    ]
    for framing, sent, following in framings:
        with _saying(_pieces(head + sent + following, cuts)) as connection:
            assert connection.head() == head
            assert _read(connection, framing) == data
            rest = bytearray(16)
            view, got = memoryview(rest), b""
            while count := connection.receive_into(view):
                got += view[:count]
            assert got == following  # not a byte of what follows is taken for the body


@given(st.binary(min_size=1, max_size=200), CUTS, st.integers(0, 10_000))
def test_a_body_that_ends_early_gives_what_came_and_then_says_so(
    data: bytes, chunks: list[int], cut: int
) -> None:
    framed = _chunked(data, chunks)
    framings: list[tuple[Framing, bytes]] = [(Length(len(data)), data), (Chunked(), framed)]
    for framing, sent in framings:
        come = sent[: cut % len(sent)]
        with _saying([come]) as connection:
            body = Body(connection, framing, Buffers(64).take, 0.01)
            got: list[bytes] = []
            with pytest.raises(Truncated):
                _read_into(got, body)
            assert data.startswith(b"".join(got))
            assert isinstance(framing, Chunked) or b"".join(got) == come


@pytest.mark.parametrize(
    "wrong",
    [
        b"-1\r\nabc\r\n",
        b"\r\n",
        b"5\nhello\r\n",
        b"0x5\r\nhello\r\n",
        b"5\r\nhelloworld\r\n0\r\n\r\n",
        b"fffffffffffffffff\r\n",
        b"5" + b";" * 10_000 + b"\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"0\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"0\r\nX: " + b"y" * 20_000 + b"\r\n\r\n",
    ],
)
def test_broken_chunks_are_malformed(wrong: bytes) -> None:
    with _saying([wrong], then_close=False) as connection, pytest.raises(Malformed):
        _read(connection, Chunked())


@pytest.mark.parametrize(
    "flood",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n" * (MAX_INTERIM + 1),
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * (MAX_HEAD_BYTES // 6 + 1),
    ],
)
def test_heads_without_end_are_malformed(flood: bytes) -> None:
    with _saying([flood], then_close=False) as connection, pytest.raises(Malformed):
        connection.head()


def test_interim_answers_are_dropped() -> None:
    with _saying(
        [b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 E\r\nA: b\r\n\r\nHTTP/1.1 201 C\r\n\r\n"]
    ) as connection:
        assert connection.head() == b"HTTP/1.1 201 C\r\n\r\n"


@pytest.mark.parametrize("call", ["receive", "send", "head"])
def test_abort_ends_what_a_thread_does(call: str) -> None:
    caught: list[Exception] = []
    with _pair() as (connection, _theirs):

        def work() -> None:
            try:
                if call == "receive":
                    connection.receive_into(memoryview(bytearray(10)))
                elif call == "head":
                    connection.head()
                else:
                    connection.send(bytes(64 << 20))
            except OSError as error:
                caught.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        connection.abort()
        thread.join(10)
        assert not thread.is_alive()
        with pytest.raises(Aborted):
            connection.receive_into(memoryview(bytearray(10)))


def test_sending_stops_at_an_early_answer() -> None:
    with _pair() as (connection, theirs):
        theirs.sendall(b"HTTP/1.1 413 Too Large\r\n\r\n")
        assert not connection.send(bytes(64 << 20))
        assert connection.head() == b"HTTP/1.1 413 Too Large\r\n\r\n"


def test_sending_to_a_full_connection_stops_at_an_early_answer() -> None:
    with _pair() as (connection, theirs):
        said = threading.Event()

        def answer() -> None:
            theirs.recv(1 << 16)
            theirs.sendall(b"HTTP/1.1 413 Too Large\r\n\r\n")
            said.set()

        thread = threading.Thread(target=answer)
        thread.start()
        assert not connection.send(bytes(64 << 20))
        thread.join()
        assert connection.head().startswith(b"HTTP/1.1 413")


INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n", b"HTTP/1.1 1"


@pytest.mark.parametrize("said", [*INTERIM, b"".join(INTERIM), b"H", b"HTTP/1.1 "])
def test_sending_goes_on_after_an_interim_answer(said: bytes) -> None:
    with _pair() as (connection, theirs):
        theirs.sendall(said)
        assert not connection.has_spoken()
        taken: list[bytes] = []

        def take() -> None:
            while sum(map(len, taken)) < 4 << 20:
                taken.append(theirs.recv(1 << 20))

        thread = threading.Thread(target=take)
        thread.start()
        assert connection.send(bytes(4 << 20))
        thread.join()
        theirs.close()
        assert connection.has_spoken(), "it has closed"


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 4",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"junk\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 413 Too Large\r\n\r\n",
        b"HTTP/1.1 100 " + b"x" * 100_000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * (MAX_INTERIM + 1),
    ],
)
def test_what_is_more_than_an_interim_answer_ends_the_sending(said: bytes) -> None:
    with _saying([said], then_close=False) as connection:
        assert not connection.send(bytes(64 << 20))
        assert connection.has_spoken()


class Renegotiating(socket.socket):
    """As TLS is in a renegotiation: there is room to send in, and nothing is taken until the other side has spoken."""

    def send(self, *_: object) -> int:
        raise ssl.SSLWantReadError


def test_a_renegotiation_that_never_ends_is_silence() -> None:
    ours, theirs = socket.socketpair()
    with theirs, closing(Connection(Renegotiating(fileno=ours.detach()))) as connection:
        assert len(connection.offer(memoryview(bytes(10)), 0.01)) == 10


def test_a_connection_with_an_interim_answer_to_nothing_is_not_used_again() -> None:
    with _pair() as (connection, theirs):
        theirs.sendall(INTERIM[0])
        assert not connection.has_spoken()
        assert not connection.is_good


def test_a_buffer_is_used_again_only_when_nobody_refers_to_it() -> None:
    buffers = Buffers(100)
    first = buffers.take()
    part = first[10:20]
    part[:] = b"0123456789"
    address = id(first.obj)
    del first
    other = buffers.take()
    assert id(other.obj) != address
    other[:] = bytes(100)
    assert bytes(part) == b"0123456789"
    del part
    again = buffers.take()
    assert id(again.obj) == address
    assert len(again) == 100


@given(st.lists(st.booleans(), max_size=200))
def test_few_free_buffers_are_kept(takes: list[bool]) -> None:
    buffers = Buffers(10)
    held: list[memoryview] = []
    for take in takes:
        if take or not held:
            held.append(buffers.take())
        else:
            held.pop()
    for number, view in enumerate(held):
        view[:] = bytes([number % 256]) * 10
    assert all(bytes(view) == bytes([number % 256]) * 10 for number, view in enumerate(held))
    held.clear()
    buffers.take()
    assert len(buffers._all) <= 24 + 1


def test_threads_never_share_a_buffer() -> None:
    buffers, wrong = Buffers(64), []

    def work(number: int) -> None:
        for _ in range(2_000):
            view = buffers.take()
            view[:] = bytes([number]) * 64
            if bytes(view) != bytes([number]) * 64:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_last_byte_is_taken_without_waiting_for_it() -> None:
    ours, theirs = socket.socketpair()
    with theirs, closing(Connection(ours)) as connection:
        body = Body(connection, Length(3), lambda: memoryview(bytearray(2)), 0.01)
        theirs.sendall(b"ab")
        assert body.last_byte() == b"", "three are left"
        assert bytes(body.next()) == b"ab"
        assert body.last_byte() == b"", "it has not come"
        theirs.sendall(b"c")
        assert body.last_byte() == b"c"
        assert body.is_over


def test_where_the_last_byte_does_not_come_the_next_reading_tells() -> None:
    ours, theirs = socket.socketpair()
    with theirs, closing(Connection(ours)) as connection:
        body = Body(connection, Length(1), lambda: memoryview(bytearray(2)), 0.01)
        theirs.close()
        assert body.last_byte() == b""
        with pytest.raises(Truncated):
            body.next()


def test_a_head_is_taken_when_it_is_whole_and_never_waited_for() -> None:
    ours, theirs = socket.socketpair()
    with theirs, closing(Connection(ours)) as connection:
        assert connection.head_that_came() is None
        theirs.sendall(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\nbody")
        assert connection.head_that_came() == b"HTTP/1.1 200 OK\r\n\r\n"
        theirs.sendall(b"HTTP/1.1 2")
        view = memoryview(bytearray(4))
        assert connection.receive_into(view) == 4
        assert connection.head_that_came() is None
        theirs.sendall(b"01 Created\r\n\r\n")
        assert connection.head() == b"HTTP/1.1 201 Created\r\n\r\n"
