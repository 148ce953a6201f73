"""The limits of one site: requests at once, requests a second, bytes a second, and "come back later"."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Final, Literal, get_args

from replicator.errors import Advice, Throttled
from replicator.events import Events, InFlight, LimitChanged
from replicator.flow.gate import Gate
from replicator.flow.pace import Pace
from replicator.flow.settings import LimitSettings
from replicator.ports import Clock

Kind = Literal["requests", "reads", "writes"]
"""Small requests, blobs read, blobs written."""

MAX_HOLD_SECONDS: Final = 300.0
"""No Retry-After holds a whole site longer than this; nor is a longer one waited for, as each request would wait anew."""

_HOLD_RESOLUTION_SECONDS: Final = 0.001


class SiteLimits:
    """What one site is spared.

    Each kind of operation has a gate of its own. Small requests, so that they go before blobs. Reads and
    writes of blobs, because a transfer holds a write slot of one site while it waits for a read slot of
    another: with one gate for both, copies from A to B and from B to A could wait for each other for ever.
    Keep to that order (write, then read, a small request last) and nothing can wait in a circle.

    Args:
        site: the site's name.
        settings: how much it is spared.
        events: gets `InFlight` and `LimitChanged`.
        clock: the time.
    """

    def __init__(self, site: str, settings: LimitSettings, *, events: Events, clock: Clock) -> None:
        self._site = site
        self._clock = clock
        self._requests = _pace(settings.requests_per_second, clock)
        self._bytes = _pace(settings.bytes_per_second, clock)
        self._held_until: float | None = None
        self._shut: float | None = None
        self._slots: dict[Kind, _Slot] = {
            kind: _Slot(self, site, kind, concurrency=settings.concurrency, events=events)
            for kind in get_args(Kind)
        }

    def slot(self, kind: Kind) -> AbstractAsyncContextManager[None]:
        """A slot for one request: entering waits for the gate, then for the pace, then for a hold to end.

        Raises `Throttled`, advising STOP_SITE, where the site asked to be left alone for longer than anybody waits.
        """
        return self._slots[kind]

    async def enter(
        self, kind: Kind, operation: str, repository: str | None = None
    ) -> AbstractAsyncContextManager[None]:
        """A slot that has been entered, and is the caller's to leave. Raises as `slot`, for that operation."""
        slot = self._slots[kind]
        try:
            await slot.__aenter__()
        except Throttled as error:
            raise error.during(operation, repository) from None
        return slot

    @asynccontextmanager
    async def slot_for(
        self, kind: Kind, operation: str, repository: str | None = None
    ) -> AsyncIterator[None]:
        """As `slot`; what is raised on entering is of that operation."""
        slot = await self.enter(kind, operation, repository)
        try:
            yield
        finally:
            await slot.__aexit__(None, None, None)

    def set_bytes_per_second(self, rate: float | None) -> None:
        """Another limit from now on; None is none. Who waits already waits by the old one."""
        if rate != (None if self._bytes is None else self._bytes.rate):
            self._bytes = _pace(rate, self._clock)

    async def pace_bytes(self, count: int) -> None:
        """Returns when `count` bytes may move; at once where bytes are not limited."""
        if self._bytes is not None:
            await self._bytes.take(count)

    def succeeded(self, kind: Kind) -> None:
        """Tells that a request went well: the kind's gate widens in time."""
        self._slots[kind].gate.succeeded()

    def congested(self, kind: Kind, retry_after: float | None = None) -> None:
        """Tells that the site had too much: the kind's gate is halved, once per congestion.

        With `retry_after` (seconds) no request of any kind starts before that, or before `MAX_HOLD_SECONDS`; where it
        is more than these, requests fail instead of waiting for it, and then the site is asked again.
        """
        self._slots[kind].gate.congested()
        if retry_after is not None and retry_after > 0:
            if retry_after > MAX_HOLD_SECONDS:
                self._shut = retry_after
            until = self._clock.monotonic() + min(retry_after, MAX_HOLD_SECONDS)
            self._held_until = until if self._held_until is None else max(self._held_until, until)

    @property
    def is_limiting(self) -> bool:
        """Whether anything beside the gates may delay a request now."""
        return self._requests is not None or self._held_until is not None

    async def wait_turn(self) -> None:
        """Waits for the request pace, then until no hold is left (it may be prolonged meanwhile). Raises as `slot`."""
        if self._requests is not None:
            await self._requests.take(1)
        while self._held_until is not None:
            wait = self._held_until - self._clock.monotonic()
            if wait < _HOLD_RESOLUTION_SECONDS:
                self._held_until = self._shut = None
            elif self._shut is not None:
                cause = f"not tried: it asked to be left alone for {self._shut:.0f} s"
                raise Throttled(
                    self._site, "send request", cause, advice=Advice.STOP_SITE, retry_after=self._shut
                )
            else:
                await self._clock.sleep(wait)


class _Slot:
    """The entrance for one kind; reusable and shared, as it keeps nothing of a single entry."""

    __slots__ = ("_back", "_events", "_limits", "_taken", "gate")

    def __init__(
        self, limits: SiteLimits, site: str, kind: Kind, *, concurrency: int, events: Events
    ) -> None:
        self._limits = limits
        self._events = events
        # Events are frozen and these two never differ: made once, not twice a request.
        self._taken = InFlight(site, kind, +1)
        self._back = InFlight(site, kind, -1)

        def tell(width: int) -> None:
            events.emit(LimitChanged(site, kind, width))

        self.gate = Gate(concurrency, clock=limits._clock, on_change=tell)  # noqa: SLF001 - one unit, in one module
        tell(self.gate.width)

    async def __aenter__(self) -> None:
        if not self.gate.try_acquire():
            await self.gate.acquire()
        if self._limits.is_limiting:
            try:
                await self._limits.wait_turn()
            except BaseException:
                self.gate.release()
                raise
        self._events.emit(self._taken)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.gate.release()
        self._events.emit(self._back)


def _pace(rate: float | None, clock: Clock) -> Pace | None:
    return None if rate is None else Pace(rate, clock=clock)
