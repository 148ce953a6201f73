"""`POST /webhooks/NAME`: accepts notifications of a site, quickly and within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from aiohttp import web

from replicator.config.build import WebhookSettings
from replicator.daemon.http.agent import Agent
from replicator.daemon.http.auth import accepts
from replicator.daemon.http.bodies import read_body
from replicator.daemon.http.problems import Problem
from replicator.daemon.http.webhooks.envelopes import MEDIA_TYPES, Hint, parse_notifications
from replicator.daemon.http.webhooks.hints import Hints
from replicator.errors import StateError
from replicator.events import WebhookOutcome, WebhookSeen

MAX_BODY_BYTES: Final = 1024 * 1024
MAX_BYTES_IN_HAND: Final = 16 * 1024 * 1024
"""Of all bodies in progress. The events in them are merged (`Hints`, `Triggers`), so nothing else can pile up."""
EVENTS_A_TURN: Final = 500
"""After these, other tasks get a turn: with hundreds of rules, 15,000 events (1 MiB) take seconds."""
RETRY_SECONDS: Final = 1

_OUTCOME: Final[dict[int, WebhookOutcome]] = {401: "unauthorized", 413: "too_large", 503: "busy"}


class Webhooks:
    """Accepts webhooks. An event is only a hint: it makes rules scan, it never says what a tag is."""

    def __init__(self, app: Agent, hints: Hints) -> None:
        self._app = app
        self._hints = hints
        self._in_hand = 0

    async def accept(self, request: web.Request) -> web.Response:
        """Accepts one request with 202, once its events are in the state; the rules that it concerns scan a moment later.

        Raises `Problem`: 404 unknown webhook, 401 without its token or signature, 413 above 1 MiB, 415 and 400 for
        anything else than notifications, 408 if the body does not arrive in time, 503 if too many arrive at once or the
        state cannot keep the events.
        """
        name = request.match_info["name"]
        hook = self._app.config.webhooks.get(name)
        if hook is None:
            raise Problem(404, "unknown webhook")
        try:
            with self._counted() as count:
                await self._pass_on(name, hook, await self._read(request, hook, count))
        except Problem as problem:
            self._note(name, _OUTCOME.get(problem.status, "malformed"))
            raise
        return web.Response(status=202)

    async def _pass_on(self, name: str, hook: WebhookSettings, hints: Iterator[Hint | None]) -> None:
        for number, hint in enumerate(hints, 1):
            if hint is None:
                self._note(name, "ignored")
            elif self._hints.add(hook.site, hint):
                self._note(name, "matched")
            else:
                self._note(name, "unmatched")
            if number % EVENTS_A_TURN == 0:
                await asyncio.sleep(0)
        try:
            await self._hints.keep()
        except StateError as error:
            headers = {"Retry-After": str(RETRY_SECONDS)}
            raise Problem(503, f"events cannot be kept: {error}", headers=headers) from error

    async def _read(
        self, request: web.Request, hook: WebhookSettings, count: Callable[[int], None]
    ) -> Iterator[Hint | None]:
        if hook.hmac is None and not accepts(hook, request, b""):
            raise _unauthorized()  # before anything of the body is read
        body = await read_body(request, MAX_BODY_BYTES, count)
        if not accepts(hook, request, body):
            raise _unauthorized()
        if request.content_type not in MEDIA_TYPES:
            raise Problem(415, f"Content-Type must be one of {', '.join(sorted(MEDIA_TYPES))}")
        try:
            return parse_notifications(body)
        except ValueError as error:
            raise Problem(400, f"the body {error}") from None

    @contextmanager
    def _counted(self) -> Iterator[Callable[[int], None]]:
        """Counts the bytes of one body while it is in progress; raises Problem (503) if all bodies together are too large."""
        own = 0

        def count(size: int) -> None:
            nonlocal own
            own += size
            self._in_hand += size
            if self._in_hand > MAX_BYTES_IN_HAND:
                raise Problem(503, "too many webhooks at once", headers={"Retry-After": str(RETRY_SECONDS)})

        try:
            yield count
        finally:
            self._in_hand -= own

    def _note(self, hook: str, outcome: WebhookOutcome) -> None:
        self._app.events.emit(WebhookSeen(hook, outcome))


def _unauthorized() -> Problem:
    return Problem(
        401,
        "the webhook's token or signature is missing or wrong",
        headers={"WWW-Authenticate": 'Bearer realm="replicator"'},
    )
