from __future__ import annotations

import hashlib
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from replicator.movers.connection import Connection
from replicator.movers.file import RESERVED_BYTES, FileOutlet, move_file, reserve
from replicator.movers.splice import Bounds, Moved, Outlet

FOR_EVER = 3600.0
DATA = os.urandom(3_000_000)


@contextmanager
def _file(path: Path, data: bytes = DATA) -> Iterator[int]:
    path.write_bytes(data)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _move(
    descriptor: int,
    outlet: Outlet,
    counts: list[int],
    *,
    offset: int = 7,
    most: int = 2_000_000,
    patience: float = FOR_EVER,
    shown: list[bytes] | None = None,
) -> Moved:
    return move_file(
        descriptor,
        offset,
        outlet,
        lambda: memoryview(bytearray(100_000)),
        Bounds(most, FOR_EVER, patience),
        show=None if shown is None else lambda piece: shown.append(bytes(piece)),
        moved=counts.append,
    )


class _Receiver(threading.Thread):
    def __init__(self, sock: socket.socket, count: int) -> None:
        super().__init__()
        self.got = bytearray()
        self._sock = sock
        self._count = count

    def run(self) -> None:
        while len(self.got) < self._count and (data := self._sock.recv(1 << 16)):
            self.got += data


@pytest.mark.parametrize("is_hashed", [False, True])
def test_a_file_goes_into_a_socket_by_the_kernel_unless_somebody_hashes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_hashed: bool
) -> None:
    by_kernel: list[int] = []
    sendfile = os.sendfile

    def counted(out: int, into: int, offset: int, count: int) -> int:
        by_kernel.append(sent := sendfile(out, into, offset, count))
        return sent

    monkeypatch.setattr(os, "sendfile", counted)
    ours, theirs = socket.socketpair()
    shown: list[bytes] | None = [] if is_hashed else None
    counts: list[int] = []
    with _file(tmp_path / "file") as descriptor, closing(Connection(ours)) as connection, theirs:
        receiver = _Receiver(theirs, 2_000_000)
        receiver.start()
        assert not _move(descriptor, connection, counts, shown=shown).rest
        receiver.join()
    assert receiver.got == DATA[7:2_000_007]
    assert sum(counts) == 2_000_000
    assert max(counts) <= 1 << 20
    assert sum(by_kernel) == (0 if is_hashed else 2_000_000)
    assert shown is None or hashlib.sha256(b"".join(shown)).digest() == hashlib.sha256(receiver.got).digest()


def test_a_file_that_the_kernel_does_not_send_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "sendfile", refuse)
    ours, theirs = socket.socketpair()
    with _file(tmp_path / "file") as descriptor, closing(Connection(ours)) as connection, theirs:
        receiver = _Receiver(theirs, 2_000_000)
        receiver.start()
        assert not _move(descriptor, connection, []).rest
        receiver.join()
    assert receiver.got == DATA[7:2_000_007]


def test_by_tls_a_file_is_read() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ours, theirs = socket.socketpair()
    with theirs, closing(Connection(ours)) as connection:
        connection._sock = context.wrap_socket(
            ours, server_hostname="localhost", do_handshake_on_connect=False
        )
        assert connection.offer_file(0, 0, 1, FOR_EVER) is None


@pytest.mark.parametrize("how", ["silent", "answers", "closes", "aborted"])
def test_what_the_other_side_did_not_take_is_left_in_the_file(tmp_path: Path, how: str) -> None:
    ours, theirs = socket.socketpair()
    counts: list[int] = []
    with _file(tmp_path / "file") as descriptor, closing(Connection(ours)) as connection, theirs:
        if how == "answers":
            theirs.sendall(b"HTTP/1.1 413 No\r\n\r\n")
        elif how == "closes":
            theirs.close()
        elif how == "aborted":
            connection.abort()
        assert not _move(descriptor, connection, counts, patience=0.01).rest
        assert sum(counts) < 2_000_000
        if how == "answers":
            assert connection.head().startswith(b"HTTP/1.1 413")
        if how == "aborted":
            with pytest.raises(OSError, match="given up"):
                connection.send(b"x")


def test_aborted_while_nothing_is_taken_the_thread_ends(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with _file(tmp_path / "file") as descriptor, closing(Connection(ours)) as connection, theirs:
        moving = threading.Thread(target=_move, args=(descriptor, connection, []))
        moving.start()
        theirs.recv(1)
        connection.abort()
        moving.join()


def test_a_file_that_is_shorter_ends_it(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    counts: list[int] = []
    with _file(tmp_path / "file", DATA[:100]) as descriptor, closing(Connection(ours)) as connection, theirs:
        assert not _move(descriptor, connection, counts).rest
        assert sum(counts) == 93


def test_a_file_takes_all_from_a_place_on_and_keeps_its_offset(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    descriptor = os.open(path, os.O_RDWR)
    try:
        at = FileOutlet(descriptor, at=4)
        assert not at.offer(memoryview(b"ab"), 0)
        assert not at.offer(memoryview(b"c"), 0)
        os.write(descriptor, b"X")
    finally:
        os.close(descriptor)
    assert path.read_bytes() == b"X123abc789"
    assert at.written == 3


def test_room_is_set_aside_and_the_length_stays(tmp_path: Path) -> None:
    with _file(tmp_path / "file", b"") as _, (tmp_path / "file").open("r+b") as file:
        reserve(file.fileno(), RESERVED_BYTES)
        assert os.fstat(file.fileno()).st_blocks * 512 >= RESERVED_BYTES
        assert os.fstat(file.fileno()).st_size == 0


def test_no_room_is_told_before_the_first_byte(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file, pytest.raises(OSError, match=r"No space|too large"):
        reserve(file.fileno(), 1 << 60)


def test_a_file_system_that_sets_nothing_aside_is_left_alone() -> None:
    with Path("/dev/null").open("wb") as file:
        reserve(file.fileno(), RESERVED_BYTES)


def test_a_disk_that_is_full_is_told_by_who_asks() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    try:
        outlet = FileOutlet(descriptor, at=0)
        assert bytes(outlet.offer(memoryview(b"abc"), 0)) == b"abc"
    finally:
        os.close(descriptor)
    assert outlet.failure is not None
    assert outlet.failure.errno == 28
