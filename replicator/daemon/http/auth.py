"""Who may do what: tokens in constant time, and what keeps other web sites' pages out."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from replicator.config.build import HTTPSettings, WebhookSettings
from replicator.daemon.http.problems import Problem

Need = Literal["health", "metrics", "read", "listen", "change", "hook"]
"""What a route asks of a request. `hook` checks for itself, once it has the body; `listen` stays connected."""

TRUSTED: Final = web.RequestKey("trusted", bool)
"""Key of a request: it showed the right token."""

_CHALLENGE: Final[dict[str, str]] = {
    hdrs.WWW_AUTHENTICATE: 'Basic realm="replicator", charset="UTF-8", Bearer realm="replicator"'
}
_JUDGED: Final = (hdrs.AUTHORIZATION, hdrs.HOST, hdrs.ORIGIN, "Sec-Fetch-Site")
_LOOPBACK_NAMES: Final = frozenset({"localhost", "localhost.localdomain", "ip6-localhost"})
_HOST: Final = re.compile(r"(?P<name>\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class Doorkeeper:
    """What is settled when listening starts. `loopback`: nobody beyond this machine can connect."""

    loopback: bool
    scheme: Literal["http", "https"]
    names: frozenset[str]
    """Names under which the agent is known, beside loopback's and any address."""

    def admit(self, request: web.Request, need: Need, settings: HTTPSettings) -> None:
        """Returns where the request may go on.

        Raises:
            Problem: 401 without a token that is needed, or with a wrong one; 403 from another web site, or where a
                change would need a token and none is configured; 415 for a change that is no JSON; 400 where what
                this is judged by is sent twice, so that a proxy before us may have looked at the other one.
        """
        if need in {"health", "hook"} or (need == "metrics" and settings.metrics_open):
            return
        for name in _JUDGED:
            if len(request.headers.getall(name, ())) > 1:
                raise Problem(400, f"{name} is sent twice")
        trusted = self._has_token(request, settings)
        request[TRUSTED] = trusted
        if not trusted and not self.loopback:
            raise Problem(
                401, "needs the agent's token, as Bearer, or as the password of Basic", headers=_CHALLENGE
            )
        if need == "change" and not trusted:
            if settings.token is None:
                raise Problem(403, "changes need a token, and none is configured; set http.token")
            raise Problem(
                401,
                "changes need the agent's token, as Bearer, or as the password of Basic",
                headers=_CHALLENGE,
            )
        if need == "listen" and request.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
            raise Problem(403, "pages of another origin may not listen")  # they would take everybody's place
        # With a token, reads may come under any name: no page of another name has it.
        if not trusted or need == "change":
            self._expect_known_host(request, settings)
        if need == "change":
            self._expect_own_page(request)

    def trusts(self, request: web.Request, settings: HTTPSettings) -> bool:
        """Whether the request may be told details."""
        try:
            self.admit(request, "read", settings)
        except Problem:
            return False
        return True

    def has_token(self, request: web.Request, settings: HTTPSettings) -> bool:
        """Whether the request shows the agent's token. Raises ConfigError where the configured one cannot be read."""
        try:
            return self._has_token(request, settings)
        except Problem:
            return False

    def _has_token(self, request: web.Request, settings: HTTPSettings) -> bool:
        """Whether the request has the token. Raises Problem (401) where it has a wrong one."""
        sent = request.headers.get(hdrs.AUTHORIZATION)
        if sent is None or settings.token is None:
            return False
        if not same(_token_in(sent), settings.token()):
            raise Problem(401, "the token is wrong", headers=_CHALLENGE)
        return True

    def _expect_known_host(self, request: web.Request, settings: HTTPSettings) -> None:
        """Keeps out pages whose own name was made to lead here (DNS rebinding): they cannot change the Host."""
        if not is_known_host(request.headers.get(hdrs.HOST, ""), (*self.names, *settings.hosts)):
            raise Problem(403, "is not known under this Host; names that are right go into http.hosts")

    def _expect_own_page(self, request: web.Request) -> None:
        if request.content_type != "application/json" or hdrs.CONTENT_TYPE not in request.headers:
            raise Problem(415, "changes need Content-Type: application/json")
        if request.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
            raise Problem(403, "changes are not taken from pages of another origin")
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is not None and not self._is_own(origin, request.headers.get(hdrs.HOST, "")):
            raise Problem(403, "changes are not taken from pages of another origin")

    def _is_own(self, origin: str, host: str) -> bool:
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        # A TLS proxy before us is https outside and http inside; the Host is what tells pages apart.
        schemes = {"https"} if self.scheme == "https" else {"http", "https"}
        return parts.scheme in schemes and parts.netloc.lower() == host.lower()


def is_known_host(host: str, names: Iterable[str]) -> bool:
    """Whether a Host header is an address, loopback's name or one of `names`, with or without a port."""
    matched = _HOST.fullmatch(host)
    if matched is None:
        return False
    name = matched["name"].lower().removesuffix(".")
    return (
        name in _LOOPBACK_NAMES
        or is_address(name.strip("[]"))
        or name in {each.lower().removesuffix(".") for each in names}
    )


def is_loopback(host: str) -> bool:
    """Whether nobody beyond this machine reaches what listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() in _LOOPBACK_NAMES


def is_address(text: str) -> bool:
    """Whether it is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def accepts(hook: WebhookSettings, request: web.Request, body: bytes) -> bool:
    """Whether the sender has the hook's token, or signed the body with its key. In constant time."""
    if hook.token is not None:
        sent = request.headers.get(hdrs.AUTHORIZATION, "")
        scheme, _, rest = sent.partition(" ")
        # `Bearer T`, or T as it is: Harbor and others send the configured text verbatim
        if same(rest.strip() if scheme.lower() == "bearer" else sent, hook.token()):
            return True
    if hook.hmac is not None:
        wanted = hmac.digest(hook.hmac.secret().encode(), body, "sha256").hex()
        sent = request.headers.get(hook.hmac.header, "")
        return same(sent.removeprefix("sha256=").lower(), wanted)
    return False


def same(sent: str, secret: str) -> bool:
    """Whether both are the same; how long it takes tells nothing, not even of lengths."""
    first, second = (
        hashlib.sha256(each.encode(errors="surrogateescape")).digest() for each in (sent, secret)
    )
    return hmac.compare_digest(first, second)


def _token_in(authorization: str) -> str:
    """What was sent as token, empty where nothing can be read."""
    scheme, _, rest = authorization.partition(" ")
    match scheme.lower():
        case "bearer":
            return rest.strip()
        case "basic":
            try:
                decoded = base64.b64decode(rest.strip(), validate=True).decode()
            except (binascii.Error, ValueError):
                return ""
            return decoded.partition(":")[2]
        case _:
            return ""
