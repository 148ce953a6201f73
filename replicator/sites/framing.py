"""Answers that break HTTP's framing in ways that leave no doubt, as careless proxies send them.

aiohttp refuses them all, other clients take them: a `Content-Length` that is there twice, a `Content-Length` beside
`Transfer-Encoding: chunked` (RFC 9112, 6.3: chunked counts), a body after the answer to HEAD. They are tolerated only on
a connection that is closed afterwards, so that what follows is never taken for another answer.
"""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Callable
from typing import Any, Final

import aiohttp
from aiohttp.client_proto import ResponseHandler

_END: Final = re.compile(rb"\r?\n\r?\n")
_LENGTH_TWICE: Final = re.compile(rb"\ncontent-length:[^\n]*,")
_MAX_LENGTHS: Final = 10
MAX_INTERIM: Final = 100
"""Answers of 1xx to one request; a flood of them would keep the event loop from everything else."""
_NOT_HTTP: Final = b"not HTTP any more\r\n\r\n"
_MAX_HEAD_BYTES: Final = 1 << 20
"""Longer heads are refused: aiohttp's bounds are of a line and of their number, 64 MB in all."""


def mended(head: bytes) -> bytes | None:
    """The head of an answer with its length given once; None where nothing is wrong, or where it is in doubt.

    Args:
        head: status line and header lines, with the empty line.
    """
    lower = head.lower()
    found = lower.count(b"\ncontent-length:") + lower.count(b"\ntransfer-encoding:")
    if found < 2 and _LENGTH_TWICE.search(lower) is None:
        return None
    lines = head.splitlines(keepends=True)
    lengths = [
        length.strip()
        for line in lines
        if line.lower().startswith(b"content-length:")
        for length in line.partition(b":")[2].split(b",")
    ]
    encodings = [
        line.partition(b":")[2].strip() for line in lines if line.lower().startswith(b"transfer-encoding:")
    ]
    if (
        len(set(lengths)) != 1
        or len(lengths) > _MAX_LENGTHS
        or not lengths[0].isdigit()
        or len(encodings) > 1
    ):
        return None
    if encodings and encodings[0].lower() != b"chunked":
        return None
    kept: list[bytes] = []
    is_given = bool(encodings)
    for line in lines:
        if not line.lower().startswith(b"content-length:"):
            kept.append(line)
        elif not is_given:
            is_given = True
            kept.append(b"Content-Length: %s\r\n" % lengths[0])
    return None if kept == lines else b"".join(kept)


class TolerantHandler(ResponseHandler):
    """aiohttp's protocol, given mended heads."""

    def __init__(self, loop: asyncio.AbstractEventLoop, count: Callable[[int], None] | None = None) -> None:
        super().__init__(loop)
        self._count = count
        self._head: bytearray | None = None
        self._is_bodiless = False
        self._interim = 0
        self.is_kept = False
        """Whether it waited for a request before the one that it is given now: the other side may just be closing it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """TLS included."""
        super().connection_made(transport)
        if self._count is not None:
            self._count(1)

    def set_response_params(self, **parameters: Any) -> None:
        """Called for each request before its answer can come."""
        self._head = bytearray()
        self._interim = 0
        self.is_kept = True
        self._is_bodiless = bool(parameters.get("skip_payload"))
        super().set_response_params(**parameters)

    def data_received(self, data: bytes) -> None:
        """Holds back what comes until the head of the answer is whole."""
        if self._head is None:
            if data and self._payload is not None and self._payload.is_eof() and not self._upgraded:
                self._drop()  # the answer is whole, and the next is not yet asked for
            else:
                answers = len(self)
                super().data_received(data)
                if len(self) > answers:
                    self._drop()  # the rest of the answer had another one behind it
            return
        if not self._head and (end := _END.search(data)) is not None and data[9:10] != b"1":
            self._head = None  # as a rule the head comes at once
            self._answer(data, end.end())
            return
        held = self._head
        start = max(0, len(held) - 3)  # not from the beginning each time: it may come byte by byte
        held += data
        begin = 0
        while (end := _END.search(held, start)) is not None:
            head = bytes(held[begin : end.end()])
            if head[9:10] != b"1":
                self._head = None
                self._answer(bytes(held[begin:]), len(head))
                return
            self._interim += 1
            if self._interim > MAX_INTERIM:
                self._head = None
                super().data_received(_NOT_HTTP)  # whoever waits is told, the connection is closed
                return
            begin = start = end.end()
            super().data_received(head)
        del held[:begin]
        if len(held) > _MAX_HEAD_BYTES:
            self._head = None
            super().data_received(_NOT_HTTP)

    def _answer(self, data: bytes, end: int) -> None:
        """Takes what came of the final answer, of which the head is the part before `end`."""
        head = data[:end]
        better = mended(head)
        is_followed = self._is_bodiless and len(data) > end
        if better is None and not is_followed:
            super().data_received(data)
            return
        self.force_close()
        super().data_received((better or head) + (b"" if is_followed else data[end:]))

    def _drop(self) -> None:
        self.force_close()
        if self.transport is not None:
            self.transport.close()

    def is_connected(self) -> bool:
        """Whether the connection can take a request: also not if more came on it than the last answer."""
        return super().is_connected() and not self.should_close

    def connection_lost(self, exc: BaseException | None) -> None:
        """What was held back is all that came."""
        if self._head:
            held, self._head = bytes(self._head), None
            super().data_received(held)
        if self._count is not None:
            self._count(-1)
        super().connection_lost(exc)


class TolerantConnector(aiohttp.TCPConnector):
    """aiohttp's connector, its connections speaking `TolerantHandler`."""

    def __init__(self, **parameters: Any) -> None:
        super().__init__(**parameters)
        self.open = 0
        """How many connections are open."""
        tolerate(self, self._counted)

    def _counted(self, change: int) -> None:
        self.open += change


def tolerate(connector: aiohttp.BaseConnector, count: Callable[[int], None] | None = None) -> None:
    """Has a connector of others speak `TolerantHandler` on the connections that it makes from now on.

    `count` gets 1 for each that is made, and -1 for each that ends.
    """
    connector._factory = functools.partial(TolerantHandler, connector._loop, count)  # type: ignore[assignment]  # noqa: SLF001
