"""Credentials with an end, renewed before they reach it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final

from replicator.errors import AuthFailed, ConfigError, SiteError
from replicator.events import CredentialsRenewed, Events, Warned
from replicator.flow.ending import end
from replicator.ports import Clock
from replicator.scrub import remember
from replicator.sites.registry.credentials import Credentials, Logins
from replicator.sites.registry.identity.source import STEP, Issued, Issuer, NoIdentity

MIN_WAIT_SECONDS: Final = 30.0
MAX_WAIT_SECONDS: Final = 900.0
"""Bounds of the wait after a renewal that failed; within them it is a fifth of what is left."""
_YOUNG_SECONDS: Final = 60.0
"""Credentials younger than this that are refused are not refused for their age: new ones would be refused as well."""


class RenewedLogins:
    """The credentials that an issuer gives, as `Logins`.

    They are asked for when they are first needed. From then on one task renews them at half of their life; while that
    fails the old ones serve until they end.

    Args:
        site: name of the site, for messages.
        issuer: who gives them.
        first: asked first (docker's files); what it has counts.
        is_optional: without an identity the site is used anonymously, instead of failing.
        events: gets `CredentialsRenewed`.
        clock: time.
    """

    def __init__(
        self,
        site: str,
        issuer: Issuer,
        *,
        first: Logins | None,
        is_optional: bool,
        events: Events,
        clock: Clock,
    ) -> None:
        self._site = site
        self._issuer = issuer
        self._first = first
        self._is_optional = is_optional
        self._events = events
        self._clock = clock
        self._issued: Issued | None = None
        self._asked_at = 0.0
        self._renew_at = 0.0
        self._is_nobody = False
        self._renewing: asyncio.Task[None] | None = None
        self._one = asyncio.Lock()

    async def owner(self) -> str:
        """See `Logins`."""
        return await self._issuer.owner() if self._issued else ""

    async def find(self, repository: str | None) -> Credentials | None:
        """See `Logins`. Raises AuthFailed and Unavailable too: see `Issuer.issue`."""
        failure: ConfigError | None = None
        if self._first is not None:
            try:
                if (found := await self._first.find(repository)) is not None:
                    return found
            except ConfigError as error:
                failure = error  # a helper that is not installed: what it would do is done here
        try:
            return await self._current()
        except NoIdentity as error:
            if failure is not None:
                raise failure from None
            if self._is_optional:
                self._is_nobody = True
                return None
            raise AuthFailed(self._site, STEP.operation, str(error)) from None

    def forget(self) -> None:
        """See `Logins`. Credentials that were just issued stay."""
        if self._first is not None:
            self._first.forget()
        if self._clock.monotonic() - self._asked_at > _YOUNG_SECONDS:
            self._issued = None
            self._is_nobody = False

    async def aclose(self) -> None:
        """Ends the renewal."""
        task = self._renewing
        if task is not None:
            # Known until it has ended: a renewal that goes on for a moment would begin another one.
            await end(task)
            self._renewing = None
            if not task.cancelled():
                task.result()

    async def _current(self) -> Credentials | None:
        if self._is_nobody:
            return None
        async with self._one:
            issued = self._issued
            if issued is None or self._clock.monotonic() >= self._ends_at(issued):
                issued = await self._issue()
        # The holder asks again at that time; during a renewal it gets the same credentials for a moment longer.
        again = max(self._renew_at, self._clock.monotonic() + MIN_WAIT_SECONDS / 2)
        return replace(issued.credentials, renew_at=again)

    async def _issue(self) -> Issued:
        asked_at = self._clock.monotonic()
        issued = await self._issuer.issue()
        for secret in (issued.credentials.password, issued.credentials.identity_token):
            if secret:
                remember(secret)
        self._issued, self._asked_at = issued, asked_at
        self._renew_at = asked_at + issued.lifetime / 2
        self._events.emit(CredentialsRenewed(self._site, "ok", self._clock.now() + issued.lifetime))
        if self._renewing is None:
            self._renewing = asyncio.create_task(self._renew(), name=f"renew credentials of {self._site}")
        return issued

    def _ends_at(self, issued: Issued) -> float:
        return self._asked_at + issued.lifetime

    async def _renew(self) -> None:
        wait = self._renew_at - self._clock.monotonic()
        while True:
            await self._clock.sleep(max(wait, MIN_WAIT_SECONDS))
            try:
                async with self._one:
                    await self._issue()
            except (SiteError, ConfigError, NoIdentity) as error:
                wait = self._failed(error)
            else:
                wait = self._renew_at - self._clock.monotonic()

    def _failed(self, error: Exception) -> float:
        """Says so, and how long to wait before the next try."""
        left = self._ends_at(self._issued) - self._clock.monotonic() if self._issued else 0.0
        self._events.emit(CredentialsRenewed(self._site, "failed", self._clock.now() + left))
        until = (
            f"the present ones are good for {left / 60:.0f} min" if left > 0 else "the old ones have expired"
        )
        self._events.emit(Warned(self._site, f"credentials were not renewed ({error}); {until}"))
        return min(max(left / 5, MIN_WAIT_SECONDS), MAX_WAIT_SECONDS)
