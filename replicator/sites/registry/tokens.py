"""Getting a bearer token: Docker's token protocol by GET and OAuth2 by POST (distribution's docs/spec/auth)."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, urlencode

import msgspec
from yarl import URL

from replicator.errors import Advice, AuthFailed, Corrupt, SiteError
from replicator.ports import Clock
from replicator.sites.bounds import MAX_TOKEN_BYTES
from replicator.sites.registry.challenge import Challenge
from replicator.sites.registry.credentials import Credentials
from replicator.sites.registry.errormap import Answer, Step, reply_failure
from replicator.sites.registry.origin import origin_of, refusal, resolve, shown, upgraded
from replicator.sites.registry.wire import Wire

CLIENT_ID: Final = "replicator"
MAX_REDIRECTS: Final = 3
DEFAULT_LIFETIME_SECONDS: Final = 60.0
"""What the token protocol says a token without `expires_in` lives."""
MAX_LIFETIME_SECONDS: Final = 24 * 3600.0
_OTHER_METHOD: Final = frozenset({400, 404, 405})
"""How services answer that speak only the other of the two protocols."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token, the seconds it lives from when it was asked for, and the identity token that came with it."""

    value: str = field(repr=False)
    lifetime: float
    refresh_token: str = field(default="", repr=False)


def basic(username: str, password: str) -> str:
    """The Authorization header's value for a user name and password."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode("ascii")


class TokenRequest(msgspec.Struct, frozen=True):
    """What is asked of a token service: scopes for a registry's challenge, as somebody or (None) nobody."""

    challenge: Challenge
    scopes: Sequence[str]
    credentials: Credentials | None
    step: Step


async def fetch_token(wire: Wire, clock: Clock, request: TokenRequest) -> Token:
    """Asks the challenge's realm for a token.

    A redirect is followed within the realm's origin alone: elsewhere it would carry the credentials to a place that the
    registry did not name.

    Raises:
        AuthFailed: the realm is refused as unsafe, or it refuses the credentials.
        Denied: it refuses the scopes.
        Throttled, Unavailable: as of any request.
        Corrupt: the answer is not a token.
    """
    realm = _checked_realm(wire, request)
    methods = ["GET"]
    if (credentials := request.credentials) is not None:
        methods = ["POST"] if credentials.identity_token else ["GET", "POST"]
        if credentials.identity_token and credentials.password:
            methods.append("GET")
    answer = await _ask(wire, methods[0], realm, request)
    if answer.status in _OTHER_METHOD and len(methods) > 1:
        second = await _ask(wire, methods[1], realm, request)
        # A service that knows neither says more with its first answer than with the second.
        answer = second if second.status not in _OTHER_METHOD else answer
    if answer.status != 200:
        raise _refused(wire.site, request, answer, realm, clock.now())
    return _read_token(wire.site, request.step, answer.body, realm)


def _checked_realm(wire: Wire, request: TokenRequest) -> URL:
    challenge, step = request.challenge, request.step
    try:
        # A registry behind a proxy that ends TLS often calls its own token service by http.
        realm = upgraded(wire.base, URL(challenge.realm, encoded=True))
        reason = _realm_refusal(wire, realm, request.credentials)
    except ValueError:
        realm, reason = URL(), "it is not a URL"
    if reason is not None:
        where = shown(realm) if realm.raw_host else repr(challenge.realm[:100])
        cause = f"the token service {where} that the registry names is refused: {reason}"
        raise AuthFailed(wire.site, step.operation, cause, repository=step.repository)
    return realm


def _realm_refusal(wire: Wire, realm: URL, credentials: Credentials | None) -> str | None:
    if origin_of(realm) == wire.realm:
        return None
    if credentials is not None and realm.scheme == "http" and realm.raw_host != wire.base.raw_host:
        # Whoever sits between us and an http registry writes its challenge, and would have our credentials sent.
        return f'it is http on another host (auth = {{ realm = "{shown(realm)}" }} allows it)'
    return refusal(wire.base, realm, wire.guard)


async def _ask(wire: Wire, method: str, realm: URL, request: TokenRequest) -> Answer:
    headers: dict[str, str] = {"Accept": "application/json"}
    data: bytes | None = None
    if method == "GET":
        if request.credentials is not None:
            headers["Authorization"] = basic(request.credentials.username, request.credentials.password)
        url = _with_query(realm, request)
    else:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        data = urlencode(_form(request)).encode()
        url = realm
    response = await wire.send(request.step, method, url, headers, data=data)
    for _ in range(MAX_REDIRECTS):
        target = _moved(response.status, response.headers, url, method)
        if target is None:
            break
        await wire.read_error(response)
        url = target
        response = await wire.send(request.step, method, url, headers, data=data)
    if response.status == 200:
        body = await wire.read(request.step, response, MAX_TOKEN_BYTES)
    else:
        body = await wire.read_error(response)
    return Answer(method, realm.raw_path, response.status, response.headers, body)


def _moved(status: int, headers: Mapping[str, str], asked: URL, method: str) -> URL | None:
    """Where a token service of the same origin moved to; None where it did not, or elsewhere, which is not followed."""
    if status not in {307, 308} and (status not in {301, 302, 303} or method != "GET"):
        return None
    try:
        target = resolve(asked, headers.get("Location", ""))
    except ValueError:
        return None
    return target if origin_of(target) == origin_of(asked) and target != asked else None


def _with_query(realm: URL, request: TokenRequest) -> URL:
    service = request.challenge.service
    pairs = [("service", service)] if service else []
    pairs += [("scope", scope) for scope in request.scopes]
    pairs.append(("client_id", CLIENT_ID))
    if request.credentials is not None and request.credentials.username:
        pairs.append(("account", request.credentials.username))
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in pairs)
    text = str(realm)
    return URL(text + ("&" if "?" in text else "?") + query, encoded=True)


def _form(request: TokenRequest) -> Mapping[str, str]:
    credentials = request.credentials or Credentials()
    form = {"client_id": CLIENT_ID, "service": request.challenge.service, "scope": " ".join(request.scopes)}
    if credentials.identity_token:
        return form | {"grant_type": "refresh_token", "refresh_token": credentials.identity_token}
    return form | {
        "grant_type": "password",
        "username": credentials.username,
        "password": credentials.password,
    }


def _refused(site: str, request: TokenRequest, answer: Answer, realm: URL, now: float) -> SiteError:
    step = request.step
    where = f"token service {shown(realm)}"
    if 300 <= answer.status < 400:
        cause = (
            f"{where} redirects ({answer.status}) to another host, which is not followed: the credentials are for this"
            " one; ask for the registry's new address"
        )
        return AuthFailed(site, step.operation, cause, repository=step.repository)
    error = reply_failure(site, step, answer, now=now, hint=where)
    if answer.status == 401 and request.credentials is None:
        # Only this scope: others may be public.
        cause = f"{error.cause}: not visible without credentials"
        return AuthFailed(site, step.operation, cause, repository=step.repository, advice=Advice.GIVE_UP)
    if answer.status in {400, 401, 404, 405}:
        return AuthFailed(site, step.operation, error.cause, repository=step.repository)
    return error


def _read_token(site: str, step: Step, body: bytes, realm: URL) -> Token:
    try:
        document: Any = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    fields = document if isinstance(document, dict) else {}
    value = fields.get("token") or fields.get("access_token")
    if not isinstance(value, str) or not value.isascii() or not value.isprintable():
        cause = f"token service {shown(realm)} answered without a token"
        raise Corrupt(site, step.operation, cause, repository=step.repository)
    refresh = fields.get("refresh_token")
    return Token(value, _lifetime(fields.get("expires_in")), refresh if isinstance(refresh, str) else "")


def _lifetime(value: Any) -> float:
    """Counted from our own asking: `issued_at` is by a clock that need not agree with ours."""
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        return DEFAULT_LIFETIME_SECONDS
    return min(seconds, MAX_LIFETIME_SECONDS) if seconds > 0 else DEFAULT_LIFETIME_SECONDS
