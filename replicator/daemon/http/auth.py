"""Who may do what: tokens, compared in constant time, and protection against pages of other web sites."""

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

from replicator.config.settings import HTTPSettings
from replicator.daemon.http.problems import Problem

Need = Literal["health", "metrics", "read", "listen", "change", "hook"]
"""What a route requires of a request. `hook` checks by itself, once it has the body; `listen` stays connected."""

TRUSTED: Final = web.RequestKey("trusted", bool)
"""Key of a request that showed the right token."""

_CHALLENGE: Final[dict[str, str]] = {
    hdrs.WWW_AUTHENTICATE: 'Basic realm="replicator", charset="UTF-8", Bearer realm="replicator"'
}
_JUDGED: Final = (hdrs.AUTHORIZATION, hdrs.HOST, hdrs.ORIGIN, "Sec-Fetch-Site")
_LOOPBACK_NAMES: Final = frozenset({"localhost", "localhost.localdomain", "ip6-localhost"})
_HOST: Final = re.compile(r"(?P<name>\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class Doorkeeper:
    """Access rules that are fixed when listening starts. `loopback`: only clients on this machine can connect."""

    loopback: bool
    scheme: Literal["http", "https"]
    names: frozenset[str]
    """Host names of the agent, besides those of loopback and any address."""

    def admit(self, request: web.Request, need: Need, settings: HTTPSettings) -> None:
        """Returns if the request is allowed.

        Raises:
            Problem: 401 if a required token is missing, or the token is wrong; 403 from another web site, or if a
                change needs a token and none is configured; 415 for a change that is not JSON; 400 if a header that
                decides is sent twice, because a proxy may have checked the other one.
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
                401,
                "the agent's token is required, as Bearer or as the password of Basic",
                headers=_CHALLENGE,
            )
        if need == "change" and not trusted:
            if settings.token is None:
                raise Problem(403, "changes require a token and none is configured; set http.token")
            raise Problem(
                401,
                "changes require the agent's token, as Bearer or as the password of Basic",
                headers=_CHALLENGE,
            )
        if need == "listen" and request.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
            raise Problem(
                403, "pages of another origin may not connect to the event stream"
            )  # nor take its places
        # With the token, any Host may read: no page of another host name has the token.
        if not trusted or need == "change":
            self._expect_known_host(request, settings)
        if need == "change":
            self._expect_own_page(request)

    def trusts(self, request: web.Request, settings: HTTPSettings) -> bool:
        """Whether the answer may contain details."""
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
        """Whether the request has the token. Raises Problem (401) if it has a wrong one."""
        sent = request.headers.get(hdrs.AUTHORIZATION)
        if sent is None or settings.token is None:
            return False
        if not same(token_in(sent), settings.token()):
            raise Problem(401, "the token is wrong", headers=_CHALLENGE)
        return True

    def _expect_known_host(self, request: web.Request, settings: HTTPSettings) -> None:
        """Refuses pages whose host name was made to resolve to us (DNS rebinding): they cannot change the Host header."""
        if not is_known_host(request.headers.get(hdrs.HOST, ""), (*self.names, *settings.hosts)):
            raise Problem(403, "unknown Host header; add the agent's host names to http.hosts")

    def _expect_own_page(self, request: web.Request) -> None:
        if request.content_type != "application/json" or hdrs.CONTENT_TYPE not in request.headers:
            raise Problem(415, "changes require Content-Type: application/json")
        if request.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
            raise Problem(403, "changes are not accepted from pages of another origin")
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is not None and not self._is_own(origin, request.headers.get(hdrs.HOST, "")):
            raise Problem(403, "changes are not accepted from pages of another origin")

    def _is_own(self, origin: str, host: str) -> bool:
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        # Behind a TLS proxy, the page is https and we are http; the Host tells pages apart.
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
    """Whether only clients on this machine can reach this address."""
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


def same(sent: str, secret: str) -> bool:
    """Whether both are the same, in time that depends neither on their content nor on where they differ."""
    first, second = (
        hashlib.sha256(each.encode(errors="surrogateescape")).digest() for each in (sent, secret)
    )
    return hmac.compare_digest(first, second)


def token_in(authorization: str) -> str:
    """The token that was sent; empty if none was sent or it cannot be parsed."""
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
