"""Small requests to the token services of clouds: bounded, timed, without redirects."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
from yarl import URL

from replicator.errors import AuthFailed, SiteError, Unavailable
from replicator.scrub import scrub
from replicator.sites.bounds import MAX_TOKEN_BYTES
from replicator.sites.registry.errormap import authority, network_failure
from replicator.sites.registry.identity.source import STEP
from replicator.sites.registry.origin import is_loopback

CLOUD_SECONDS: Final = 30.0
METADATA_SECONDS: Final = 2.0
"""A metadata server is on the same host: one that does not answer at once does not exist."""
_AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_WORDS: Final = ("error_description", "error", "message", "errors", "detail")


async def ask(
    site: str,
    url: str,
    *,
    form: Mapping[str, str] | None = None,
    document: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    needs: str,
    is_local: bool = False,
) -> Mapping[str, Any]:
    """The JSON object that a token service answers: to a form or a document by POST, else by GET.

    Args:
        site: name of the site, for messages.
        url: of the service; http only for a metadata server and on this machine.
        form: the body, as fields.
        document: the body, as JSON.
        headers: of the request.
        needs: the right that is missing if the service refuses, for the message.
        is_local: a metadata server, asked without a proxy and only for `METADATA_SECONDS`.

    Raises:
        AuthFailed: it refuses, or would be sent secrets unencrypted.
        Unavailable: no answer in time, or a failure that passes.
    """
    target = URL(url, encoded=True)
    data = urlencode(form).encode() if form is not None else None
    sent = {"Accept": "application/json", **(headers or {})}
    if form is not None:
        sent["Content-Type"] = "application/x-www-form-urlencoded"
    elif document is not None:
        data = json.dumps(document).encode()
        sent["Content-Type"] = "application/json"
    if target.scheme != "https" and not is_local and not is_loopback(target.raw_host or ""):
        raise AuthFailed(site, STEP.operation, f"{authority(target)} is asked for credentials by https only")
    seconds = METADATA_SECONDS if is_local else CLOUD_SECONDS
    try:
        async with (
            asyncio.timeout(seconds),
            aiohttp.ClientSession(trust_env=not is_local) as session,
            session.request(
                "GET" if data is None else "POST", target, data=data, headers=sent, allow_redirects=False
            ) as response,
        ):
            body = await response.content.read(MAX_TOKEN_BYTES + 1)
            while len(body) <= MAX_TOKEN_BYTES and (more := await response.content.read(MAX_TOKEN_BYTES)):
                body += more
            status = response.status
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise network_failure(error, authority(target)).error(site, STEP) from None
    return _document(site, target, status, body, needs)


def _document(site: str, url: URL, status: int, body: bytes, needs: str) -> Mapping[str, Any]:
    where = authority(url)
    try:
        document: Any = json.loads(body) if len(body) <= MAX_TOKEN_BYTES else None
    except (ValueError, RecursionError):
        document = None
    if status in _AGAIN:
        raise Unavailable(site, STEP.operation, f"{where} answered {status}{_said(document)}", answered=True)
    if status not in {200, 201}:
        refusal = AuthFailed(site, STEP.operation, f"{where} refuses ({status}{_said(document)})")
        raise refusal.needing(needs) from None
    if not isinstance(document, dict):
        raise Unavailable(site, STEP.operation, f"{where} did not answer with a JSON object", answered=True)
    return document


def _said(document: Any) -> str:
    if not isinstance(document, dict):
        return ""
    words = next((document[key] for key in _WORDS if document.get(key)), "")
    return f": {scrub(str(words), 300)}" if words else ""


def text_of(site: str, document: Mapping[str, Any], key: str, url: str) -> str:
    """A field that must be a text of printable ASCII, such as a token.

    Raises:
        SiteError: it is not.
    """
    value = document.get(key)
    if isinstance(value, str) and value and value.isascii() and value.isprintable():
        return value
    failure: SiteError = Unavailable(
        site, STEP.operation, f"{authority(URL(url, encoded=True))} answered without {key}", answered=True
    )
    raise failure


def seconds_of(document: Mapping[str, Any], key: str, default: float) -> float:
    """A field with seconds, whether number or text; `default` if it is neither, and never above a day."""
    try:
        seconds = float(document.get(key, default))
    except (TypeError, ValueError, OverflowError):
        seconds = default
    return min(seconds, 86_400.0) if seconds > 0 else default
