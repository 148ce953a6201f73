"""One HTTP/1.1 connection for threads: sends bytes, reads the head of an answer, receives its body."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import select
import socket
import ssl
import sys
from time import monotonic
from typing import Final

MAX_HEAD_BYTES: Final = 1 << 20
"""A longer head is refused."""
MAX_INTERIM: Final = 100
"""Answers of 1xx to one request; a flood of them would keep a thread busy for ever."""
_HELD_BYTES: Final = 64 * 1024
_SEND_BYTES: Final = 256 * 1024
"""Between pieces of this size an early answer is looked for."""
_END: Final = re.compile(rb"\r?\n\r?\n")
_STATUS_AT: Final = len(b"HTTP/1.1 ")
_IN: Final = select.POLLIN | select.POLLPRI
_CANNOT_SEND: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EOVERFLOW})
"""Of a file system that `sendfile` does not read."""
_SIOCOUTQ: Final = 0x5411  # of Linux
_WOULD_BLOCK: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Malformed(Exception):
    """What came is not valid HTTP. The text says why."""


class Aborted(OSError):
    """`Connection.abort` was called."""


class Connection:
    """A connected socket, used by one thread at a time.

    Every call blocks until it is done, the other side closes, or `abort` is called; none has a time limit of its own.

    Args:
        sock: connected, without TLS. The connection owns it from now on.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._held = bytearray()
        self._interim = 0
        self._aborted = False
        self._failure: OSError | None = None
        self._sent_bytes = 0

    @property
    def is_good(self) -> bool:
        """Whether it can serve again: nothing broke it, and no bytes have come that nobody has asked for."""
        return not (self._held or self._interim or self._aborted or self._failure)

    def fileno(self) -> int:
        """The socket's file descriptor, -1 once closed."""
        return self._sock.fileno()

    def left(self) -> int:
        """Becomes another number whenever the other side takes a byte of what is sent. From any thread."""
        return backlog(self.fileno()) - self._sent_bytes

    def secure(self, context: ssl.SSLContext, hostname: str) -> None:
        """Starts TLS. Raises `ssl.SSLError` or `OSError`."""
        plain = self._sock
        self._sock = context.wrap_socket(plain, server_hostname=hostname, do_handshake_on_connect=False)
        while True:
            try:
                self._sock.do_handshake()
            except ssl.SSLWantReadError:
                self._wait(_IN)
            except ssl.SSLWantWriteError:
                self._wait(select.POLLOUT)
            else:
                return

    def send(self, data: bytes | memoryview) -> bool:
        """Sends the bytes; False if the other side answered (`has_spoken`) before all were taken.

        What it said is kept for `head`. Raises `OSError` where the connection broke and nothing was said.
        """
        if self._failure is not None:
            raise self._failure
        return not self._sent(memoryview(data), None)

    def offer(self, data: memoryview, seconds: float) -> memoryview:
        """As `send`, but gives up when nothing was taken for `seconds`: what was not taken.

        A broken connection is not raised here but by the next `send`.
        """
        try:
            return self._sent(data, seconds)
        except OSError as error:
            self._failure = error
            return data

    def offer_file(self, descriptor: int, offset: int, count: int, seconds: float) -> int | None:
        """As `offer`, of a file: how many bytes were taken. None: TLS, or a file that the kernel cannot send."""
        if isinstance(self._sock, ssl.SSLSocket):
            return None
        taken = 0
        try:
            while taken < count and not self.has_spoken():
                try:
                    sent = os.sendfile(self._sock.fileno(), descriptor, offset + taken, count - taken)
                except BlockingIOError:
                    if not self._wait(_IN | select.POLLOUT, monotonic() + seconds):
                        break
                    continue
                if not sent:
                    break  # the file is shorter
                taken += sent
                self._sent_bytes += sent
        except OSError as error:
            if error.errno in _CANNOT_SEND and not taken:
                return None
            if self._aborted or not self._drained():
                self._failure = error
        return taken

    def _sent(self, view: memoryview, seconds: float | None) -> memoryview:
        """Sends; what was not taken."""
        unchecked = _SEND_BYTES
        while view:
            try:
                if unchecked >= _SEND_BYTES:
                    if self.has_spoken():
                        break
                    unchecked = 0
                sent = self._sock.send(view[:_SEND_BYTES])  # TLS takes a record at a time
            except _WOULD_BLOCK as blocked:
                # In a renegotiation TLS has room to send in, and waits for what the other side says.
                events = _IN if isinstance(blocked, ssl.SSLWantReadError) else _IN | select.POLLOUT
                if not self._wait(events, None if seconds is None else monotonic() + seconds):
                    break
                unchecked = _SEND_BYTES
            except OSError:
                if not self._aborted and self._drained():
                    break
                raise
            else:
                view, unchecked = view[sent:], unchecked + sent
                self._sent_bytes += sent
        return view

    def has_spoken(self) -> bool:
        """Whether the other side answers, or has closed; never blocks.

        Interim answers (100 Continue, 102 Processing) are none, and are dropped: who sends these goes on reading. With
        TLS there may be records that carry no data, such as session tickets: these are taken in.
        """
        while not self._answers():
            self._raise_aborted()
            if not self._is_readable():
                return False
            try:
                data = self._sock.recv(_HELD_BYTES)
            except _WOULD_BLOCK:
                return False
            if not data:
                return True
            self._held += data
        return True

    def _answers(self) -> bool:
        """Whether more has come than interim answers, which are dropped as long as they are few, and a part of another."""
        held = self._held
        while (end := _END.search(held)) is not None and _is_interim(held) and self._interim < MAX_INTERIM:
            self._interim += 1
            del held[: end.end()]
        has_status = len(held) > _STATUS_AT and not _is_interim(held)
        return end is not None or has_status or len(held) >= _HELD_BYTES

    def head(self) -> bytes:
        """The status line and headers of the answer, with the empty line; `b""` where the other side closed instead.

        Interim answers are dropped. Where the other side closes in the middle, what came is returned.

        Raises:
            Malformed: it has more than `MAX_HEAD_BYTES`, or `MAX_INTERIM` interim answers came.
        """
        held, start = self._held, 0
        while True:
            head = self._taken_head(start)
            if head is not None:
                return head
            start = max(0, len(held) - 3)
            data = self._receive(_HELD_BYTES)
            if not data:
                head = bytes(held)
                held.clear()
                return head
            held += data

    def head_that_came(self) -> bytes | None:
        """As `head`, and never blocks: None where the head is not whole yet, or the other side has closed.

        Raises:
            Malformed: see `head`.
            OSError: the connection broke.
        """
        return self._taken_head(0) if self.has_spoken() else None

    def _taken_head(self, start: int) -> bytes | None:
        """The head, if it has come. What is before `start` has been looked at."""
        held = self._held
        while (end := _END.search(held, start)) is not None:
            head = bytes(held[: end.end()])
            del held[: end.end()]
            start = 0
            if not _is_interim(head):
                self._interim = 0
                return head
            self._interim += 1
            if self._interim > MAX_INTERIM:
                raise Malformed(f"more than {MAX_INTERIM} interim answers")
        if len(held) > MAX_HEAD_BYTES:
            raise Malformed(f"a head of more than {MAX_HEAD_BYTES} bytes")
        return None

    def receive_into(self, view: memoryview, until: float | None = None) -> int | None:
        """Fills a part of `view`: the number of bytes, 0 where the other side closed.

        Args:
            view: where to, not empty.
            until: a time of `time.monotonic`; None is returned if nothing comes before it. Without it waits on.
        """
        if not self._held:
            return self._from_socket(view, until)
        count = min(len(view), len(self._held))
        view[:count] = self._held[:count]
        del self._held[:count]
        return count

    def line(self, most: int, until: float | None = None) -> bytes | None:
        """The next line without its CRLF; None where it is not whole at `until`, which loses nothing.

        Raises:
            Malformed: it has more than `most` bytes, or ends otherwise.
            EOFError: the other side closed in it.
        """
        start = 0
        while True:
            end = self._held.find(b"\n", start)
            if end >= 0:
                line = bytes(self._held[:end])
                if not line.endswith(b"\r") or len(line) > most:
                    break
                del self._held[: end + 1]
                return line[:-1]
            start = len(self._held)
            if start > most:
                break
            data = self._receive(_HELD_BYTES, until)
            if data is None:
                return None
            if not data:
                raise EOFError
            self._held += data
        raise Malformed("a line that is too long or does not end in CRLF")

    def abort(self) -> None:
        """Ends what a thread is doing with the connection, from any thread; nothing can be done with it afterwards."""
        self._aborted = True
        with contextlib.suppress(OSError):
            socket.socket.shutdown(
                self._sock, socket.SHUT_RDWR
            )  # past TLS, which would talk to a thread's session

    def close(self) -> None:
        """Closes the socket. Not while a thread uses the connection."""
        self._aborted = True
        with contextlib.suppress(OSError):
            self._sock.close()

    def _drained(self) -> bool:
        """Takes in what the other side said before it broke the connection; whether it said anything."""
        with contextlib.suppress(OSError):
            while len(self._held) <= MAX_HEAD_BYTES and (data := self._sock.recv(_HELD_BYTES)):
                self._held += data
        return bool(self._held)

    def _receive(self, count: int, until: float | None = None) -> bytes | None:
        buffer = bytearray(count)
        with memoryview(buffer) as view:
            got = self._from_socket(view, until)
            return None if got is None else bytes(view[:got])

    def _from_socket(self, view: memoryview, until: float | None) -> int | None:
        while True:
            self._raise_aborted()
            try:
                return self._sock.recv_into(view)
            except ssl.SSLWantWriteError:
                events = select.POLLOUT
            except (BlockingIOError, ssl.SSLWantReadError):
                events = _IN
            if not self._wait(events, until):
                return None

    def _is_readable(self) -> bool:
        if isinstance(self._sock, ssl.SSLSocket) and self._sock.pending():
            return True
        return bool(self._polled(_IN, 0))

    def _wait(self, events: int, until: float | None = None) -> bool:
        """Whether the socket got ready before `until`."""
        self._raise_aborted()
        if until is None:
            self._polled(events, None)
        elif not self._polled(events, max(0.0, (until - monotonic()) * 1000)):
            return False
        self._raise_aborted()
        return True

    def _polled(self, events: int, milliseconds: float | None) -> bool:
        poll = select.poll()
        poll.register(self._sock.fileno(), events)
        return bool(poll.poll(milliseconds))

    def _raise_aborted(self) -> None:
        if self._aborted:
            raise Aborted("the connection was given up")


def backlog(descriptor: int) -> int:
    """How many bytes the system keeps for a socket because the other side has not taken them.

    0 where that cannot be told: the socket is closed, or not one of TCP.
    """
    try:
        count = fcntl.ioctl(descriptor, _SIOCOUTQ, bytes(4))
    except (OSError, ValueError):
        return 0
    return int.from_bytes(count, sys.byteorder)


def _is_interim(head: bytes | bytearray) -> bool:
    """Whether a head, or the beginning of one, is of an answer that another one follows. 101 ends HTTP, so none does."""
    status = head[_STATUS_AT : _STATUS_AT + 3]
    return status.startswith(b"1") and status != b"101"
