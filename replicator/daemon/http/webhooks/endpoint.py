"""`POST /webhooks/NAME`: accepts notifications of a site, quickly and within bounds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
from aiohttp import hdrs, web

from replicator.config.settings import OIDCSettings, WebhookSettings
from replicator.daemon.http.agent import Agent
from replicator.daemon.http.auth import token_in
from replicator.daemon.http.bodies import read_body
from replicator.daemon.http.problems import Problem
from replicator.daemon.http.webhooks.hints import Hints
from replicator.daemon.http.webhooks.oidc import BadToken, IssuerKeys, NoKeys, verify
from replicator.daemon.http.webhooks.senders import shows_secret, signed
from replicator.errors import StateError
from replicator.events.agent import WebhookOutcome, WebhookSeen
from replicator.model.strictjson import read_object
from replicator.notifications.format import Delivery, Format, Hint, read_events
from replicator.scrub import scrub
from replicator.sites.registry.settings import RegistrySettings
from replicator.sites.registry.vendors.senders import MEDIA_TYPES, format_of

MAX_BODY_BYTES: Final = 1024 * 1024
MAX_BYTES_IN_HAND: Final = 16 * 1024 * 1024
"""Of all bodies in progress. The events in them are merged (`Hints`, `Triggers`), so nothing else can pile up."""
EVENTS_A_TURN: Final = 500
"""After these, other tasks get a turn: with hundreds of rules, 15,000 events (1 MiB) take seconds."""
RETRY_SECONDS: Final = 1
MAX_TOLD: Final = 100
"""Reasons of refusals that are logged, each once; beyond, no more are."""

_OUTCOME: Final[dict[int, WebhookOutcome]] = {401: "unauthorized", 413: "too_large", 503: "busy"}

_log = logging.getLogger(__name__)


class Notification(msgspec.Struct, frozen=True):
    """Whatever a registry sends; see webhooks.md. The shape that the API's document shows."""


class Webhooks:
    """Accepts webhooks. An event is only a hint: it makes rules scan, it never says what a tag is."""

    def __init__(self, app: Agent, hints: Hints) -> None:
        self._app = app
        self._hints = hints
        self._in_hand = 0
        self._told: set[tuple[str, str]] = set()
        self._keys: dict[str | Path, IssuerKeys] = {}

    async def accept(self, request: web.Request) -> web.Response:
        """Accepts one request with 202, once its events are in the state; the rules that it concerns scan a moment later.

        Raises `Problem`: 404 unknown webhook, 401 without its token or signature, 413 above 1 MiB, 415 and 400 for
        anything else than notifications, 403 if all its events name another registry, 408 if the body does not arrive
        in time, 503 if too many arrive at once or the state cannot keep the events.
        """
        name = request.match_info["name"]
        hook = self._app.config.webhooks.get(name)
        if hook is None:
            raise Problem(404, "unknown webhook")
        try:
            with self._counted() as count:
                sender, events = await self._read(request, hook, count)
                are_foreign = await self._pass_on(hook, sender, events)
        except Problem as problem:
            self._note(name, _OUTCOME.get(problem.status, "malformed"))
            raise
        if are_foreign and not sender.redelivers:
            raise Problem(403, "the notification names a different registry from the webhook's site")
        return web.Response(status=202)

    async def _pass_on(self, hook: WebhookSettings, sender: Format, events: Sequence[Hint | None]) -> bool:
        """Whether all events name another registry."""
        foreign = 0
        for number, hint in enumerate(events, 1):
            if hint is None:
                self._note(hook.name, "ignored")
            elif self._is_foreign(hook, sender, hint):
                foreign += 1
                self._note(hook.name, "other_registry")
            elif self._hints.add(hook.site, hint):
                self._note(hook.name, "matched")
            else:
                self._note(hook.name, "unmatched")
            if number % EVENTS_A_TURN == 0:
                await asyncio.sleep(0)
        try:
            await self._hints.keep()
        except StateError as error:
            headers = {"Retry-After": str(RETRY_SECONDS)}
            raise Problem(503, f"events cannot be kept: {error}", headers=headers) from error
        return 0 < foreign == len(events)

    def _is_foreign(self, hook: WebhookSettings, sender: Format, hint: Hint) -> bool:
        """Whether the event names a registry other than the hook's site; logs each such name once."""
        named, (url, _) = hint.registry, self._site(hook)
        if named is None or named in hook.hosts:
            return False
        if url is None and not hook.hosts:
            return False  # a bucket or directory has no host name to compare
        if url is not None and sender.is_same(named, url):
            return False
        self._tell(
            hook.name,
            f"refused a {sender.kind} notification from the registry {scrub(named)}: the site {hook.site} is "
            f"{url or 'not a registry'}; if both are the same registry, add the name to webhook.{hook.name}.hosts",
        )
        return True

    def _tell(self, hook: str, text: str) -> None:
        """Logs the text once per process."""
        if (hook, text) not in self._told and len(self._told) < MAX_TOLD:
            self._told.add((hook, text))
            _log.warning("webhook %s: %s", hook, text)

    def _site(self, hook: WebhookSettings) -> tuple[str | None, str]:
        """URL and kind of the hook's site; None and "" if it is not a registry."""
        site = self._app.config.sites.get(hook.site)
        return (site.url, site.kind) if isinstance(site, RegistrySettings) else (None, "")

    async def _read(
        self, request: web.Request, hook: WebhookSettings, count: Callable[[int], None]
    ) -> tuple[Format, Sequence[Hint | None]]:
        # before anything of the body is read, unless it is signed
        if hook.oidc is not None:
            await self._expect_token(hook.name, hook.oidc, request)
        elif hook.hmac is None and not shows_secret(hook, request):
            raise _unauthorized()
        body = await read_body(request, MAX_BODY_BYTES, count)
        if hook.hmac is not None and not signed(hook, request, body):
            raise _unauthorized()
        if request.content_type not in MEDIA_TYPES:
            raise Problem(415, f"Content-Type must be one of {', '.join(sorted(MEDIA_TYPES))}")
        try:
            document = read_object(body)
        except ValueError as error:
            raise Problem(400, f"not a notification: {error}") from None
        headers = {name.lower(): value for name, value in request.headers.items()}
        url, kind = self._site(hook)
        delivery = Delivery(headers, document, url)
        sender = format_of(delivery, hook.kind, likely=kind)
        if sender is None:
            wanted = f"a notification of {hook.kind}" if hook.kind else "a known notification"
            raise Problem(400, f"the body is not {wanted}")
        if request.content_type not in sender.media_types:
            raise Problem(415, f"Content-Type must be one of {', '.join(sorted(sender.media_types))}")
        try:
            return sender, read_events(sender, delivery)
        except ValueError as error:
            raise Problem(413, f"the notification has {error}") from None

    async def _expect_token(self, hook: str, wanted: OIDCSettings, request: web.Request) -> None:
        """Returns if the request has the wanted token. Raises `Problem`: 401, or 503 if its issuer's keys are not known."""
        keys = self._keys.setdefault(wanted.keys, IssuerKeys(wanted.keys, self._app.clock))
        try:
            sent = token_in(request.headers.get(hdrs.AUTHORIZATION, ""))
            await verify(sent, wanted, keys, self._app.clock.now())
        except BadToken as error:
            self._tell(hook, f"refused a token: {error}")
            raise _unauthorized() from None
        except NoKeys as error:
            self._tell(hook, f"cannot check tokens: {error}")
            headers = {"Retry-After": str(RETRY_SECONDS)}
            raise Problem(503, "the issuer's keys cannot be read", headers=headers) from None

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
