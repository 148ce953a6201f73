"""The errors that one registry's answers amount to, by what is known of the credentials and of who answered."""

from __future__ import annotations

from typing import Final

from yarl import URL

from replicator.errors import Advice, AuthFailed, SiteError, Transient, Unavailable, Unsupported
from replicator.ports import Clock
from replicator.sites.registry.auth import Authenticator
from replicator.sites.registry.call import Call, Reply
from replicator.sites.registry.errormap import Answer, reply_failure
from replicator.sites.registry.grants import NO_GRANT, Grant
from replicator.sites.registry.origin import Origin, origin_of, shown

_REFUSED: Final = frozenset({401, 403})
_WRONG_LOGIN: Final = "the registry refuses this username or password"


class Failures:
    """Makes errors of the answers of one registry.

    Args:
        site: the site's name.
        origin: the registry's own; behind a redirect another host answers.
        auth: knows what the registry asks of credentials.
        clock: the time.
    """

    def __init__(self, site: str, origin: Origin, auth: Authenticator, clock: Clock) -> None:
        self._site = site
        self._origin = origin
        self._auth = auth
        self._clock = clock

    def error(self, call: Call, reply: Reply) -> SiteError:
        """The error that a reply amounts to, by its status and codes."""
        url = reply.url
        answer = Answer(call.method, url.raw_path, reply.status, reply.headers, reply.body)
        if origin_of(url) != self._origin:
            return self._foreign(call, answer, url)
        error = reply_failure(self._site, call, answer, now=self._clock.now(), hint=self._hint(call, reply))
        if isinstance(error, AuthFailed) and call.repository and not self._auth.is_basic:
            # The token service had no objection: it is this repository, and the next one may be fine
            # (docs/quirks.md#not-found-or-denied)
            return self._auth_failed(call, error.cause, Advice.GIVE_UP)
        return error

    async def refusal(self, call: Call, reply: Reply, grant: Grant) -> SiteError:
        """As `error`; a 401 that is about one repository alone does not stop the site, one that is about the login says so."""
        error = self.error(call, reply)
        if not isinstance(error, AuthFailed) or grant is NO_GRANT:
            return error
        if await self._auth.is_login_refused(grant, by_ping=call.url == "/v2/"):
            answer = Answer(call.method, call.url, reply.status, reply.headers, reply.body)
            cause = reply_failure(self._site, call, answer, now=self._clock.now(), hint=_WRONG_LOGIN).cause
            return AuthFailed(self._site, "log in", cause)
        if call.repository is None:
            return error
        if error.advice is Advice.STOP_SITE and self._auth.is_about_one_repository(call.repository):
            return self._auth_failed(call, error.cause, Advice.GIVE_UP)
        return error

    async def upload_refusal(self, call: Call, reply: Reply, grant: Grant) -> SiteError:
        """As `refusal`, of a request whose body is gone: `AuthFailed` that advises RETRY where a new token is at hand."""
        if reply.status == 401 and grant is not NO_GRANT:
            error = self.error(call, reply)
            if await self._auth.renewed(grant, reply) is not None:
                return self._auth_failed(call, error.cause, Advice.RETRY)
        return await self.refusal(call, reply, grant)

    def _hint(self, call: Call, reply: Reply) -> str:
        if reply.status in _REFUSED and self._auth.is_anonymous(call.repository):
            return (
                "not found, or not visible without credentials"
                if call.repository
                else "credentials are needed"
            )
        if reply.status == 401 and call.repository:
            return "not found, or not visible with these credentials"
        return ""

    def _foreign(self, call: Call, answer: Answer, url: URL) -> SiteError:
        """An answer of the storage behind a redirect: never about the registry's credentials."""
        error = reply_failure(self._site, call, answer, now=self._clock.now(), hint=f"from {shown(url)}")
        if isinstance(error, Transient):
            return error
        if call.method == "HEAD" and answer.status != 404:
            # GitLab's dependency proxy redirects HEAD to a URL that is signed for GET (moby#50065).
            return Unsupported(self._site, call.operation, error.cause, repository=call.repository)
        if answer.status in {400, 401, 403}:
            # A signed URL that has expired; asked again, the registry signs a new one.
            return Unavailable(self._site, call.operation, error.cause, repository=call.repository)
        return error

    def _auth_failed(self, call: Call, cause: str, advice: Advice) -> AuthFailed:
        return AuthFailed(self._site, call.operation, cause, repository=call.repository, advice=advice)
