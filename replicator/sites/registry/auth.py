"""Who we are at one registry: its challenge, the credentials for a repository, and tokens by exact scope set.

The challenge is learnt once, by a ping without credentials, and kept: Harbor asks for Basic as soon as a request
carries any Authorization, so the challenge of a refusal must not replace the first one.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

from msgspec.structs import replace

from replicator.errors import Advice, AuthFailed, ConfigError, Corrupt, Denied
from replicator.flow.once import Once
from replicator.ports import Clock
from replicator.sites.registry.challenge import Challenge, best_challenge, parse_challenges
from replicator.sites.registry.credentials import ConfiguredLogin, Credentials, Logins
from replicator.sites.registry.errormap import Step
from replicator.sites.registry.grants import Grant, Refusal, Scope
from replicator.sites.registry.ping import ping, ping_url
from replicator.sites.registry.tokens import Token, TokenRequest, basic, fetch_token
from replicator.sites.registry.wire import Wire

_FRESH_SECONDS: Final = 2.5
"""A token younger than this that is refused at its first use has not expired."""
_UNRIPE_SECONDS: Final = _FRESH_SECONDS  # how long a new token may still be refused
_MOMENT_SECONDS: Final = 0.5  # how often it is tried
_IN_VAIN: Final = 2  # after how many failures it is no longer tried
_REFUSED_EVERYWHERE: Final = 3
"""This many repositories refused, and none shown, are a refusal of everything."""
_MAX_GRANTS: Final = 1_000
"""Above this number, expired grants are dropped: pairs of repositories (mounts) are many."""


class Authenticator:
    """Grants for one site. Safe to use from many tasks: each thing is asked for once at a time.

    Errors of `obtain` and `renewed` are `SiteError`s; `AuthFailed` if no grant can be obtained. `see` is told the
    headers of the ping's answer, whose challenge gives the software away.
    """

    def __init__(
        self,
        wire: Wire,
        clock: Clock,
        logins: Logins,
        *,
        see: Callable[[Mapping[str, str]], None] | None = None,
    ) -> None:
        self._wire = wire
        self._clock = clock
        self._see = see
        self._logins = logins
        self._known: dict[str | None, Credentials | None] = {}
        self._challenge: Challenge | None = None
        self._grants: dict[Scope, Grant] = {}
        self._wider: dict[Scope, list[str]] = {}
        self._by_basic: set[Scope] = set()
        self._pings: Once[None, Challenge] = Once()
        self._ahead: asyncio.Task[Challenge] | None = None
        self._fetches: Once[Scope, Grant] = Once()
        self._reading = asyncio.Lock()
        self._login: tuple[Credentials, bool] | None = None
        self._refused: set[str] = set()
        self._in_vain = 0

    async def aclose(self) -> None:
        """Cancels the request that was made ahead, if nobody has needed its answer."""
        if self._ahead is not None:
            self._ahead.cancel()
            await asyncio.wait({self._ahead})
        await self._logins.aclose()

    async def owner(self) -> str:
        """Whose the credentials are, where their issuer says so; "" otherwise."""
        return await self._logins.owner()

    async def meet(self) -> None:
        """Learns the challenge, unless it is known. Raises SiteError."""
        if self._challenge is None:
            await self._met()

    def meet_ahead(self) -> None:
        """Begins to learn the challenge. Whoever needs it first gets the outcome, an error too."""
        self._ahead = asyncio.create_task(self._pings.run(None, self._ping))
        self._ahead.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def _met(self) -> Challenge:
        ahead, self._ahead = self._ahead, None
        return await (ahead or self._pings.run(None, self._ping))

    async def credentials(self, repository: str | None) -> Credentials | None:
        """The credentials for a repository, None for anonymous. Raises SiteError."""
        return await self._credentials(repository)

    def is_anonymous(self, repository: str | None) -> bool:
        """Whether no credentials were found for the repository (also as long as nobody looked)."""
        return self._known.get(repository) is None

    @property
    def is_asked(self) -> bool:
        """Whether the registry has asked for credentials; one that has not may still do so for a repository."""
        return self._challenge is not None and self._challenge.scheme != "none"

    @property
    def is_basic(self) -> bool:
        """Whether the registry takes user name and password itself, so that its refusal is about them."""
        return self._challenge is not None and self._challenge.scheme == "basic"

    def held(self, scope: Scope, *, before_body: bool = False) -> Grant | None:
        """A grant that is at hand and will last: until `expiry - min(30 s, 20 %)`, for a body twice as long as that.

        A token to push to a repository serves to pull from it too.
        """
        now = self._clock.monotonic()
        if (grant := self._lasting(scope, now, before_body=before_body)) is not None:
            return grant  # as a rule, and no other scope need be made
        for wider in scope.supersets():
            if (grant := self._lasting(wider, now, before_body=before_body)) is not None:
                return grant
        return None

    def _lasting(self, scope: Scope, now: float, *, before_body: bool) -> Grant | None:
        grant = self._grants.get(scope)
        if grant is None or now >= (grant.refresh_before_body if before_body else grant.refresh_at):
            return None
        return grant

    async def obtain(self, scope: Scope) -> Grant:
        """A new grant, shared with whoever asks for the same scope meanwhile."""
        return await self._fetches.run(scope, partial(self._make, scope))

    async def renewed(self, grant: Grant, reply: Refusal) -> Grant | None:
        """Another grant to try after a refusal, None where the refusal is final.

        In turn: a newer token, the challenge that was not known, single scopes instead of merged ones, secrets
        that changed meanwhile. Each leads on at most once, so a caller's loop ends; it should count all the same.
        """
        scope = grant.scope
        current = self._grants.get(scope)
        if current is not None and current is not grant:
            return current
        if reply.status == 403:
            if scope.also_pull is None or grant.accepted:
                return None
            # cgr.dev refuses a token for other repositories with 403: without the mount's origin it passes.
            single = scope._replace(also_pull=None)
            self._grants[scope] = self.held(single) or await self.obtain(single)
            return self._grants[scope]
        challenges = parse_challenges(reply.headers.getall("WWW-Authenticate", []))
        if grant.challenge is self._challenge and await self._try_again(grant, challenges):
            return grant
        self._drop(grant)
        is_old = grant.accepted or self._clock.monotonic() - grant.obtained > _FRESH_SECONDS
        if (
            grant.challenge is not self._challenge
            or self._adopt(best_challenge(challenges))
            or (is_old and grant.headers)
            or self._widen(scope, challenges)
            or self._falls_back_to_basic(scope, challenges)
            or await self._secrets_changed(grant)
        ):
            return await self.obtain(scope)
        return None

    def _drop(self, grant: Grant) -> None:
        for scope in [scope for scope, held in self._grants.items() if held is grant]:
            del self._grants[scope]

    # --- making grants --------------------------------------------------------------------------------------

    async def _make(self, scope: Scope) -> Grant:
        challenge = self._challenge or await self._met()
        is_wanted = challenge.scheme != "none" or isinstance(self._logins, ConfiguredLogin)
        # docker's files and helpers are asked only for a registry that wants credentials: a helper may be missing.
        credentials = await self._credentials(scope.repository) if is_wanted else None
        grant = Grant(scope, {}, challenge, credentials, self._clock.monotonic())
        if credentials is not None and credentials.bearer_token:
            grant.headers = {"Authorization": f"Bearer {credentials.bearer_token}"}
        elif challenge.scheme == "basic" or scope in self._by_basic:
            if credentials is not None:
                grant.headers = {"Authorization": basic(credentials.username, credentials.password)}
                grant.refresh_at = grant.refresh_before_body = credentials.renew_at
        elif challenge.scheme == "bearer":
            grant = await self._by_token(challenge, scope, credentials)
        self._keep(scope, grant)
        return grant

    def _keep(self, scope: Scope, grant: Grant) -> None:
        if len(self._grants) >= _MAX_GRANTS:
            now = self._clock.monotonic()
            self._grants = {key: held for key, held in self._grants.items() if now < held.refresh_at}
        self._grants[grant.scope] = self._grants[scope] = grant

    async def _by_token(self, challenge: Challenge, scope: Scope, credentials: Credentials | None) -> Grant:
        began = self._clock.monotonic()
        try:
            token, credentials = await self._fetch(challenge, scope, credentials)
        except (AuthFailed, Denied):
            if scope.also_pull is None:
                raise
            # Without a right to the mount's origin, pushing still works: only the mount is refused.
            scope = scope._replace(also_pull=None)
            token, credentials = await self._fetch(challenge, scope, credentials)
        if token.refresh_token and credentials is not None and credentials.identity_token:
            credentials = dataclasses.replace(credentials, identity_token=token.refresh_token)
            self._known[scope.repository] = credentials
        return Grant(
            scope,
            {"Authorization": f"Bearer {token.value}"},
            challenge,
            credentials,
            obtained=began,
            refresh_at=began + token.lifetime - min(30.0, token.lifetime / 5),
            refresh_before_body=began + token.lifetime - min(60.0, token.lifetime * 2 / 5),
        )

    async def _fetch(
        self, challenge: Challenge, scope: Scope, credentials: Credentials | None
    ) -> tuple[Token, Credentials | None]:
        texts = [*scope.texts(), *self._wider.get(scope, ())]
        request = TokenRequest(challenge, texts, credentials, Step("get token", scope.repository))
        try:
            return await fetch_token(self._wire, self._clock, request), credentials
        except AuthFailed as error:
            fresh = await self._read_again(scope.repository, credentials)
            if fresh == credentials:
                if scope.repository is None or not await self._is_login_good(challenge, credentials):
                    raise
                raise AuthFailed(
                    error.site,
                    error.operation,
                    error.cause,
                    repository=scope.repository,
                    advice=Advice.GIVE_UP,
                ) from error
            return await fetch_token(self._wire, self._clock, replace(request, credentials=fresh)), fresh

    async def _is_login_good(self, challenge: Challenge, credentials: Credentials | None) -> bool:
        """Whether the token service takes the credentials as such, so that its refusal was about one scope.

        Asked as `docker login` asks: for no scope. One answer holds for as long as the credentials are the same.
        """
        if credentials is None:
            return False
        if self._login is None or self._login[0] != credentials:
            request = TokenRequest(challenge, [], credentials, Step("get token"))
            try:
                await fetch_token(self._wire, self._clock, request)
            except (AuthFailed, Denied, Corrupt):
                self._login = credentials, False
            else:
                self._login = credentials, True
        return self._login[1]

    def is_about_one_repository(self, repository: str) -> bool:
        """Whether a final 401 is about the repository alone, once `is_login_refused` has said that the login is good.

        Behind a token service it is: the login was good for a token. With Basic, the refusal of some repositories in a
        row, and of all so far, is one of everything.
        """
        if not self.is_basic or self._is_accepted:
            return True
        self._refused.add(repository)
        return len(self._refused) < _REFUSED_EVERYWHERE

    async def is_login_refused(self, grant: Grant, *, by_ping: bool = False) -> bool:
        """Whether a final 401 is about user name and password themselves: with Basic, they are tried at the ping.

        Args:
            grant: what the refused request was sent with.
            by_ping: that request was the ping.
        """
        if not self.is_basic or self._is_accepted or grant.credentials is None:
            return False
        if by_ping:
            self._login = grant.credentials, False
        elif self._login is None or self._login[0] != grant.credentials:
            url = ping_url(self._wire.base)
            response = await self._wire.send(Step("ping"), "GET", url, grant.headers)
            await self._wire.read_error(response)
            self._login = grant.credentials, response.status != 401
        return not self._login[1]

    @property
    def _is_accepted(self) -> bool:
        return any(held.accepted for held in self._grants.values())

    async def _try_again(self, grant: Grant, challenges: Sequence[Challenge]) -> bool:
        """Whether a fresh token that is refused at its first use is to be tried again, a moment later.

        Replicas of a registry may not know it yet, and clocks that are apart make it valid a second or two from now.
        The same answer means "no such repository" at Quay and others: where the refusal does not say that it is the
        token (RFC 6750, `invalid_token`), waiting was in vain twice, and none has helped, nobody waits any more.
        """
        errors = {challenge.parameters.get("error", "") for challenge in challenges}
        age = self._clock.monotonic() - grant.obtained
        credentials = grant.credentials
        is_ready_made = credentials is not None and bool(credentials.bearer_token)
        if grant.accepted or "Authorization" not in grant.headers or is_ready_made:
            return False
        if "insufficient_scope" in errors or "bearer" not in {challenge.scheme for challenge in challenges}:
            return False
        if self._challenge is None or self._challenge.scheme != "bearer" or age > _UNRIPE_SECONDS:
            self._in_vain += age > _UNRIPE_SECONDS
            return False
        # What anonymous clients are refused is private, as a rule.
        if "invalid_token" not in errors and (credentials is None or self._in_vain >= _IN_VAIN):
            return False
        await self._clock.sleep(_MOMENT_SECONDS)
        return not grant.accepted  # else it was good for others meanwhile, and refused for its age

    # --- secrets --------------------------------------------------------------------------------------------

    async def _credentials(self, repository: str | None) -> Credentials | None:
        if not self._is_known(repository):
            async with self._reading:
                if not self._is_known(repository):
                    self._known[repository] = await self._find(repository)
        return self._known[repository]

    def _is_known(self, repository: str | None) -> bool:
        if repository not in self._known:
            return False
        known = self._known[repository]
        return known is None or self._clock.monotonic() < known.renew_at

    async def _secrets_changed(self, grant: Grant) -> bool:
        repository = grant.scope.repository
        if await self._read_again(repository, grant.credentials) == grant.credentials:
            return False
        # What the old secrets got is as good as refused.
        self._grants = {
            key: held for key, held in self._grants.items() if held.credentials != grant.credentials
        }
        return True

    async def _read_again(self, repository: str | None, refused: Credentials | None) -> Credentials | None:
        """The credentials after a refusal: files and helpers may have been given new ones meanwhile."""
        async with self._reading:
            if self._known.get(repository) == refused:  # else somebody has read them again already
                self._logins.forget()
                fresh = await self._find(repository)
                self._known = {repository: fresh} if fresh != refused else self._known
            return self._known.get(repository)

    async def _find(self, repository: str | None) -> Credentials | None:
        try:
            return await self._logins.find(repository)
        except ConfigError as error:
            cause = "; ".join(error.problems)
            raise AuthFailed(self._wire.site, "read credentials", cause, repository=repository) from None

    # --- challenges -----------------------------------------------------------------------------------------

    def _adopt(self, offered: Challenge | None) -> bool:
        """Takes a challenge that is news: where there was none, or Bearer where there was Basic; never the reverse."""
        current = self._challenge
        if offered is None or current is None:
            return False
        if current.scheme == "none" or (current.scheme == "basic" and offered.scheme == "bearer"):
            self._challenge = offered
            self._grants.clear()
            return True
        return False

    def _widen(self, scope: Scope, challenges: Sequence[Challenge]) -> bool:
        """Adds to a scope what the registry asks for under another name, as path-rewriting proxies do.

        Only for pulling: Quay creates a repository when a token to push to it is asked for.
        """
        offered = best_challenge(challenges)
        if offered is None or offered.scheme != "bearer" or scope in self._wider or scope.actions == "":
            return False
        allowed = set(scope.actions.split(","))
        wanted = [
            text
            for text in offered.scopes
            if text not in scope.texts() and set(text.rpartition(":")[2].split(",")) <= allowed
        ]
        self._wider[scope] = wanted
        return bool(wanted)

    def _falls_back_to_basic(self, scope: Scope, challenges: Sequence[Challenge]) -> bool:
        """Harbor serves its catalog to Basic alone, whatever its ping asked for."""
        offered = best_challenge(challenges)
        if (
            scope.actions != "catalog"
            or scope in self._by_basic
            or offered is None
            or offered.scheme != "basic"
        ):
            return False
        if self.is_anonymous(scope.repository):
            return False
        self._by_basic.add(scope)
        return True

    async def _ping(self) -> Challenge:
        self._challenge = await ping(self._wire, self._clock, self._see)
        return self._challenge
