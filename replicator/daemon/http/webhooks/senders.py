"""Authenticates the senders of webhooks by secrets and signatures, compared in constant time."""

from __future__ import annotations

import hmac

from aiohttp import hdrs, web

from replicator.config.settings import WebhookSettings
from replicator.daemon.http.auth import same, token_in

TOKEN_PARAMETER = "token"  # noqa: S105 - its name


def shows_secret(hook: WebhookSettings, request: web.Request) -> bool:
    """Whether the headers or URL of a request have the hook's secret (`token`, `header` or `url_token`)."""
    if hook.token is not None:
        sent, secret = request.headers.get(hdrs.AUTHORIZATION, ""), hook.token()
        # `Bearer T`, T as the password of Basic, or T alone: Harbor sends the configured text verbatim
        return any([same(token_in(sent), secret), same(sent, secret)])
    if hook.header is not None:
        return same(request.headers.get(hook.header.name, ""), hook.header.value())
    if hook.url_token is not None:
        return same(request.query.get(TOKEN_PARAMETER, ""), hook.url_token())
    return False


def signed(hook: WebhookSettings, request: web.Request, body: bytes) -> bool:
    """Whether the body is signed with the hook's key (`hmac`)."""
    if hook.hmac is None:
        return False
    wanted = hmac.digest(hook.hmac.secret().encode(), body, hook.hmac.algorithm).hex()
    sent = request.headers.get(hook.hmac.header, "")
    return same(sent.removeprefix(f"{hook.hmac.algorithm}=").lower(), wanted)
