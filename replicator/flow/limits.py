"""The limits of one site: requests at once, requests a second, bytes a second, and "come back later"."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Final, Literal, get_args

from replicator.errors import Advice, Throttled
from replicator.events import Events, InFlight, LimitChanged, TurnAwaited
from replicator.flow.gate import EPOCH_SECONDS, Gate
from replicator.flow.pace import Pace
from replicator.flow.rate import Rate
from replicator.flow.settings import LimitSettings
from replicator.ports import Clock

Traffic = Literal["requests", "reads", "writes"]
"""Small requests, blobs read, blobs written."""

MAX_HOLD_SECONDS: Final = 300.0
"""No Retry-After holds a whole site longer than this; nor is a longer one waited for, as each request would wait anew."""

LARGE_BLOB_BYTES: Final = 32 * 1024 * 1024
"""A transfer of more is a large one: it leaves a part of its gate to small ones."""

_RESOLUTION_SECONDS: Final = 0.001


class SiteLimits:
    """What one site is spared.

    Each kind of operation has a gate of its own. Small requests, so that they go before blobs. Reads and
    writes of blobs, because a transfer holds a write slot of one site while it waits for a read slot of
    another: with one gate for both, copies from A to B and from B to A could wait for each other for ever.
    Keep to that order (write, then read, a small request last) and nothing can wait in a circle. Within a gate, blobs
    of more than `LARGE_BLOB_BYTES` leave a part to others (`flow.gate`).

    Behind the gates is one line for all kinds. Once the site has refused a request for there being too many, those in
    it start one by one at the pace that the site is learnt to take (`flow.rate`), also after a hold: released together
    they would only be refused together.

    Args:
        site: the site's name.
        settings: how much it is spared.
        events: gets `InFlight`, `LimitChanged` and `TurnAwaited`.
        clock: the time.
    """

    def __init__(self, site: str, settings: LimitSettings, *, events: Events, clock: Clock) -> None:
        self._site = site
        self._events = events
        self._clock = clock
        self._settings = settings
        self._share = 1.0
        self._bytes_per_second = settings.bytes_per_second
        self._requests = _pace(settings.requests_per_second, clock)
        self._bytes = _pace(settings.bytes_per_second, clock)
        self._rate = Rate()
        self._line = asyncio.Lock()  # serves in the order of asking
        self._held_until: float | None = None
        self.served = 0
        self._shut: float | None = None
        self._gates: dict[Traffic, Gate] = {
            kind: _gate(site, kind, self._widest(kind), clock, events) for kind in get_args(Traffic)
        }
        self._slots = {
            (kind, large): _Slot(self, gate, site, kind, large=large, events=events)
            for kind, gate in self._gates.items()
            for large in (False, True)
        }

    def _widest(self, kind: Traffic) -> int:
        return self._settings.concurrency if kind == "requests" else self._settings.streams

    def slot(self, kind: Traffic, size: int | None = None) -> AbstractAsyncContextManager[None]:
        """A slot for one request: entering waits for the gate, then for the pace, then for a hold to end.

        `size`: bytes of the blob that moves, where that is known. Raises `Throttled`, advising STOP_SITE, where the site asked to be left alone for longer than anybody waits.
        """
        return self._slots[kind, size is not None and size > LARGE_BLOB_BYTES]

    async def enter(
        self, kind: Traffic, operation: str, repository: str | None = None, *, size: int | None = None
    ) -> AbstractAsyncContextManager[None]:
        """A slot that has been entered, and is the caller's to leave. Raises as `slot`, for that operation."""
        slot = self.slot(kind, size)
        try:
            await slot.__aenter__()
        except Throttled as error:
            raise error.during(operation, repository) from None
        return slot

    @asynccontextmanager
    async def slot_for(
        self, kind: Traffic, operation: str, repository: str | None = None, *, size: int | None = None
    ) -> AsyncIterator[None]:
        """As `slot`; what is raised on entering is of that operation."""
        slot = await self.enter(kind, operation, repository, size=size)
        try:
            yield
        finally:
            await slot.__aexit__(None, None, None)

    @asynccontextmanager
    async def kept(self, kind: Traffic, *, size: int | None = None) -> AsyncIterator[None]:
        """A slot for several requests, one after the other: entering waits for the gate only, each takes `turn_for`."""
        gate, large = self._gates[kind], size is not None and size > LARGE_BLOB_BYTES
        await gate.acquire(large=large)
        self._events.emit(InFlight(self._site, kind, +1))
        try:
            yield
        finally:
            gate.release(large=large)
            self._events.emit(InFlight(self._site, kind, -1))

    @asynccontextmanager
    async def turn_for(self, operation: str, repository: str | None = None) -> AsyncIterator[None]:
        """The turn of one request whose slot is `kept`; what is raised on entering is as for `enter`."""
        if self.is_limiting:
            try:
                await self.wait_turn()
            except Throttled as error:
                raise error.during(operation, repository) from None
        yield

    def set_bytes_per_second(self, rate: float | None) -> None:
        """Another limit from now on, of which this agent keeps to its share; None is none."""
        if rate != self._bytes_per_second:
            self._bytes_per_second = rate
            self._bytes = _pace(self.bytes_per_second, self._clock)

    def limit_to(self, share: float) -> None:
        """From now on this agent keeps to a part of each limit, above 0 and at most 1: others have the rest.

        Never less than one request at a time, so that many agents may together have more than `concurrency`.
        """
        if share == self._share:
            return
        self._share = share
        for kind, gate in self._gates.items():
            gate.limit_to(int(self._widest(kind) * share))
        for pace, rate in (
            (self._requests, self._settings.requests_per_second),
            (self._bytes, self._bytes_per_second),
        ):
            if pace is not None and rate is not None:
                pace.change(rate * share)

    @property
    def bytes_per_second(self) -> float | None:
        """This agent's share of the limit; None: no limit."""
        return None if self._bytes_per_second is None else self._bytes_per_second * self._share

    @property
    def paces_bytes(self) -> bool:
        """Whether bytes may have to wait for their turn (`pace_bytes`)."""
        return self._bytes is not None

    async def pace_bytes(self, count: int) -> None:
        """Returns when `count` bytes may move; at once where bytes are not limited."""
        if self._bytes is not None:
            await self._bytes.take(count)

    def expect(self, wanted: Callable[[int], None]) -> None:
        """Has `wanted` called when a small request must wait, with how many will be in progress at once soon.

        Not while anything beside the gate delays requests.
        """

        def tell(count: int) -> None:
            if not self.is_limiting:
                wanted(count)

        self._gates["requests"].on_wait = tell

    def at_once(self, count: int) -> int:
        """How many of `count` small requests would start now, if none were in progress."""
        return 1 if self.is_limiting else min(count, self._gates["requests"].width)

    def succeeded(self, kind: Traffic, *, by_site: bool = True) -> None:
        """Tells that a request went well: the kind's gate widens in time.

        `by_site`: it was the site itself that answered, not the storage that it sent us to. `served` counts these.
        """
        self._gates[kind].succeeded()
        if by_site:
            self.answered()

    def answered(self) -> None:
        """Tells that the site itself took a request."""
        self.served += 1
        self._rate.accepted(self._clock.monotonic())

    def congested(
        self,
        kind: Traffic,
        retry_after: float | None = None,
        *,
        sent_at: float | None = None,
        by_site: bool = True,
    ) -> None:
        """Tells that the site had too much: the kind's gate is halved, once per congestion, and the pace is cut.

        With `retry_after` (seconds) no request of any kind starts before that, or before `MAX_HOLD_SECONDS`; where it
        is more than these, requests fail instead of waiting for it, and then the site is asked again. `sent_at` is
        when the refused request started (by the clock's `monotonic`); `by_site` as for `succeeded`.
        """
        self._gates[kind].congested()
        now, hold = self._clock.monotonic(), 0.0
        if retry_after is not None and retry_after > 0:
            if retry_after > MAX_HOLD_SECONDS:
                self._shut = retry_after
            hold = min(retry_after, MAX_HOLD_SECONDS)
            until = now + hold
            self._held_until = until if self._held_until is None else max(self._held_until, until)
        if by_site:
            self._rate.refused(now, now - EPOCH_SECONDS if sent_at is None else sent_at, hold)

    def blameless(self) -> None:
        """Tells that what was refused lately is refused always, whatever the load: nobody else need wait for it."""
        self._rate.blameless(self._clock.monotonic())

    def told(self, remaining: int, reset: float) -> None:
        """Takes what the site said: this many requests are left in a window that ends in `reset` seconds.

        Not heeded for windows that last longer than anybody waits: whether the site means it, a refusal tells.
        """
        if 0 < reset <= MAX_HOLD_SECONDS:
            in_flight = sum(gate.in_use for gate in self._gates.values())
            self._rate.told(remaining, reset, self._clock.monotonic(), in_flight)

    @property
    def is_limiting(self) -> bool:
        """Whether anything beside the gates may delay a request now."""
        return self._requests is not None or self._held_until is not None or self._rate.is_known

    async def wait_turn(self) -> None:
        """Waits for the request pace, for the turn in the line and until no hold is left. Raises as `slot`.

        Pace and hold may change meanwhile: what counts is how they are in the end.
        """
        if self._requests is not None:
            await self._requests.take(1)
        if not self._line.locked() and self._wait() < _RESOLUTION_SECONDS:
            self._rate.take(self._clock.monotonic())
            return
        self._events.emit(TurnAwaited(self._site, +1))
        try:
            await self._stand_in_line()
        finally:
            self._events.emit(TurnAwaited(self._site, -1))

    async def _stand_in_line(self) -> None:
        async with self._line:
            while (wait := self._wait()) >= _RESOLUTION_SECONDS:
                await self._clock.sleep(wait)
            self._rate.take(self._clock.monotonic())

    def _wait(self) -> float:
        now = self._clock.monotonic()
        wait = self._rate.wait(now)
        if self._held_until is not None:
            hold = self._held_until - now
            if hold < _RESOLUTION_SECONDS:
                self._held_until = self._shut = None
            elif self._shut is not None:
                cause = f"skipped: the site asked clients to wait {self._shut:.0f} s (Retry-After)"
                raise Throttled(
                    self._site, "send request", cause, advice=Advice.STOP_SITE, retry_after=self._shut
                )
            else:
                wait = max(wait, hold)
        return wait


class _Slot:
    """The entrance for one kind, for large blobs or all else; reusable and shared: it keeps nothing of a single entry."""

    __slots__ = ("_back", "_events", "_is_large", "_limits", "_taken", "gate")

    def __init__(
        self, limits: SiteLimits, gate: Gate, site: str, kind: Traffic, *, large: bool, events: Events
    ) -> None:
        self.gate = gate
        self._limits = limits
        self._is_large = large
        self._events = events
        # Events are frozen and these two never differ: made once, not twice a request.
        self._taken = InFlight(site, kind, +1)
        self._back = InFlight(site, kind, -1)

    async def __aenter__(self) -> None:
        if not self.gate.try_acquire(large=self._is_large):
            await self.gate.acquire(large=self._is_large)
        if self._limits.is_limiting:
            try:
                await self._limits.wait_turn()
            except BaseException:
                self.gate.release(large=self._is_large)
                raise
        self._events.emit(self._taken)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.gate.release(large=self._is_large)
        self._events.emit(self._back)


def _gate(site: str, kind: Traffic, limit: int, clock: Clock, events: Events) -> Gate:
    def tell(width: int) -> None:
        events.emit(LimitChanged(site, kind, width))

    gate = Gate(limit, clock=clock, on_change=tell)
    tell(gate.width)
    return gate


def _pace(rate: float | None, clock: Clock) -> Pace | None:
    return None if rate is None else Pace(rate, clock=clock)
