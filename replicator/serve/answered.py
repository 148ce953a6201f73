"""What is told of each request: to a log and to metrics, neither of which is known here."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, Protocol


@dataclass(frozen=True, slots=True)
class Answered:
    """A request that was answered.

    Attributes:
        operation: which endpoint: "blob", "manifest", "tags", ...; "other" for what is none, "refused" for a
            connection too many.
        size: bytes of the body that went out; `whole` is False where that were fewer than announced.
        seconds: from the request's head to the last byte of the body.
        user: who it was, where users are asked for.
    """

    operation: str
    method: str
    path: str
    status: int
    size: int
    seconds: float
    whole: bool
    remote: str
    user: str = ""


class Audience(Protocol):
    """Who is told. Neither may raise or take long."""

    def sent(self, operation: str, count: int) -> None:
        """Bytes of a body went out."""
        ...

    def answered(self, answered: Answered) -> None:
        """A request ended."""
        ...


class Transfer:
    """What goes out in answer to one request.

    Attributes:
        status: of the answer, once it has begun and nothing else can be answered any more; else 0.
        whole: nothing broke off after that.
        size: bytes of the body so far.
        user: who asked, where that is known.
    """

    def __init__(self, operation: str, audience: Audience) -> None:
        self.operation = operation
        self.status = 0
        self.whole = True
        self.size = 0
        self.user = ""
        self._audience = audience

    def sent(self, count: int) -> None:
        """Takes note of bytes that went out."""
        self.size += count
        self._audience.sent(self.operation, count)


_current: Final[ContextVar[Transfer]] = ContextVar("transfer")


def start_transfer(transfer: Transfer) -> None:
    """Makes it the one of the request that is being answered: aiohttp handles each in a task of its own."""
    _current.set(transfer)


def current_transfer() -> Transfer:
    """The one of the request that is being answered."""
    return _current.get()
