"""From what happened on the wire to the `SiteError` that says so, and what to do about it.

Nobody above this package sees aiohttp, ssl or OSError, nor an HTTP status that was not expected.
"""

from __future__ import annotations

import email.utils
import json
import os
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final, Protocol

import aiohttp
import msgspec
from yarl import URL

from replicator.errors import (
    Advice,
    AuthFailed,
    Denied,
    MissingReference,
    NotFound,
    Overloaded,
    Rejected,
    SiteError,
    Throttled,
    TooSlow,
    Unavailable,
    Unsupported,
)
from replicator.flow.limits import MAX_HOLD_SECONDS
from replicator.scrub import scrub
from replicator.sites.bounds import MAX_ERROR_BYTES, MAX_HEADER_BYTES, MAX_HEADERS
from replicator.sites.reading import BrokenFraming, Late
from replicator.sites.registry.addresses import AddressRefused
from replicator.sites.registry.markup import words_of

_SHOWN_CHARACTERS: Final = 200
_BINARY_PART: Final = 10
"""Text of which more than one character in so many is not UTF-8 is not text."""
_DETAILS: Final = 8
_DATE_CHARACTERS: Final = 64
_REFUSAL_CODES: Final = frozenset({"UNAUTHORIZED", "DENIED"})
_MISSING_CODES: Final = frozenset({"MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN", "MANIFEST_UNKNOWN"})
_UNKNOWN_CODES: Final = _MISSING_CODES | {"NAME_UNKNOWN", "NOT_FOUND"}
"""A registry's own words for what it does not have; Harbor says NOT_FOUND."""
_THROTTLE_CODES: Final = frozenset(
    {"TOOMANYREQUESTS", "TOO_MANY_REQUEST", "THROTTLINGEXCEPTION", "RESOURCE_EXHAUSTED"}
)
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}(?![0-9a-f])|sha512:[0-9a-f]{128}(?![0-9a-f])")


class Operation(Protocol):
    """What an error is about. `http.Call` is one."""

    @property
    def operation(self) -> str:
        """A short verb phrase."""
        ...

    @property
    def repository(self) -> str | None:
        """None for the whole site."""
        ...


class Step(msgspec.Struct, frozen=True):
    """An operation of our own: a ping, a token request."""

    operation: str
    repository: str | None = None


class Answer(msgspec.Struct, frozen=True):
    """A reply that was not the hoped-for one, as far as its error depends on it."""

    method: str
    path: str
    status: int
    headers: Mapping[str, str]
    body: bytes = b""


# --- no reply -----------------------------------------------------------------------------------------------


class Failure(msgspec.Struct, frozen=True):
    """A request that got no (whole) reply. `word` stands where its status would: "timeout", "reset", "tls" ..."""

    word: str
    cause: str
    advice: Advice = Advice.RETRY
    is_slow: bool = False

    def error(self, site: str, about: Operation) -> Unavailable:
        """As a `SiteError`."""
        kind = TooSlow if self.is_slow else Unavailable
        return kind(
            site,
            about.operation,
            self.cause,
            repository=about.repository,
            advice=self.advice,
            answered=self.is_slow,
        )


def authority(url: URL) -> str:
    """Host and port of a URL, also where the port is the scheme's own: that may be what is wrong."""
    return f"{url.host_subcomponent}:{url.port}"


def network_failure(error: Exception, host: str) -> Failure:  # noqa: C901, PLR0911, PLR0912 - a table
    """What an exception of aiohttp, ssl or the system means. `host`: see `authority`.

    The exception's own text is used only where it cannot hold a URL: a redirect's signed query is a secret.
    """
    if (tls := _tls_failure(error, host)) is not None:
        return tls
    match error:
        case aiohttp.ClientConnectorDNSError(os_error=AddressRefused() as refused):
            return Failure("refused", str(refused), Advice.GIVE_UP)
        case aiohttp.ClientConnectorDNSError():
            return Failure("dns", f"cannot resolve {error.host}: {_reason(error.os_error)}")
        case aiohttp.ClientProxyConnectionError():
            return Failure(
                "connect", f"cannot reach the proxy {error.host}:{error.port}: {_reason(error.os_error)}"
            )
        case aiohttp.ClientHttpProxyError():
            advice = (
                Advice.STOP_SITE if error.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED else Advice.RETRY
            )
            return Failure(
                "proxy", f"the proxy refused to connect to {host} ({_status(error.status)})", advice
            )
        case aiohttp.ConnectionTimeoutError():
            return Failure("timeout", f"no connection to {host} in time")
        case aiohttp.ClientConnectorError():
            return Failure("connect", f"cannot connect to {host}: {_reason(error.os_error)}")
        case Late():
            return Failure("timeout", f"{host} {error.text}", is_slow=error.is_slow)
        case BrokenFraming():
            return Failure(
                "malformed", f"the answer of {host} is not valid HTTP: its body breaks the framing"
            )
        case TimeoutError():
            return Failure("timeout", f"no answer from {host} in time")
        case aiohttp.ClientPayloadError():
            return Failure("truncated", f"the answer of {host} broke off")
        case aiohttp.ServerDisconnectedError():
            return Failure("reset", f"{host} closed the connection without an answer")
        case aiohttp.ClientResponseError():
            return Failure("malformed", f"{host} {_not_read(error)}")
        case aiohttp.InvalidURL() | ValueError():
            return Failure("malformed", f"not a usable URL or header for {host}", Advice.GIVE_UP)
        case OSError():
            return Failure("reset", f"connection to {host} broke: {_reason(error)}")
    return Failure("error", f"connection to {host} broke ({type(error).__name__})")


def _not_read(error: aiohttp.ClientResponseError) -> str:
    """Why an answer was not read; aiohttp's message tells an oversized head from bytes that are not HTTP."""
    message = error.message.lower()
    if message.startswith("got more than"):
        return f"answers with a header of more than {MAX_HEADER_BYTES} bytes; is a proxy in front of it?"
    if "too many headers" in message:
        return f"answers with more than {MAX_HEADERS} headers; is a proxy in front of it?"
    return "does not answer in HTTP"


def _tls_failure(error: Exception, host: str) -> Failure | None:
    cause = _ssl_error(error)
    if cause is None:
        return None
    if isinstance(cause, ssl.SSLCertVerificationError):
        return Failure(
            "tls",
            f"certificate verification failed for {host}: {cause.verify_message or 'not trusted'};"
            " if its authority is your own, set tls.ca to its certificate",
            Advice.STOP_SITE,
        )
    reason = (cause.reason or "handshake failed").replace("_", " ").lower()
    hint = ""
    if isinstance(error, aiohttp.ClientConnectorError) and (
        "wrong version" in reason or "http request" in reason
    ):  # of the handshake; later it is a broken record
        hint = "; does it speak plain HTTP (url = http://...)?"
    elif "certificate required" in reason or "bad certificate" in reason or "handshake failure" in reason:
        hint = "; it may want a client certificate (tls.cert, tls.key)"
    # Without one of these hints the peer may just have gone away in the handshake.
    return Failure("tls", f"TLS with {host}: {reason}{hint}", Advice.STOP_SITE if hint else Advice.RETRY)


def _ssl_error(error: BaseException) -> ssl.SSLError | None:
    for candidate in _chain(error):
        # aiohttp's own classes first: some inherit from SSLError too, without being filled in as one.
        match candidate:
            case aiohttp.ClientConnectorCertificateError(certificate_error=ssl.SSLError() as inner):
                return inner
            case aiohttp.ClientConnectorCertificateError():
                return ssl.SSLCertVerificationError(str(candidate.certificate_error))
            case aiohttp.ClientConnectorError(os_error=ssl.SSLError() as inner):
                return inner
            case ssl.SSLError() if not isinstance(candidate, aiohttp.ClientError):
                return candidate
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(5):
        if error is None:
            return
        yield error
        error = error.__cause__


def _reason(error: OSError) -> str:
    """The system's own words: those of asyncio repeat the address, those of aiohttp the URL with its signature."""
    if isinstance(error, socket.gaierror):
        return error.strerror or "name resolution failed"
    for candidate in _chain(error):
        if isinstance(candidate, OSError) and candidate.errno is not None:
            return os.strerror(candidate.errno)
    return "the other side closed it"


# --- a reply ------------------------------------------------------------------------------------------------


class ErrorBody(msgspec.Struct, frozen=True):
    """What an error's body says: the registry's codes, the digests it names, and its text as it may be shown."""

    codes: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    text: str = ""


def read_error(body: bytes) -> ErrorBody:
    """Reads the body of an error: the registries' JSON, another service's JSON, HTML, plain text or nothing."""
    text = body[:MAX_ERROR_BYTES].decode("utf-8", "replace")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        if text.count("\ufffd") * _BINARY_PART > len(text):
            return ErrorBody()  # the content of a blob, for example
        return ErrorBody(text=_shown(words_of(text)), digests=tuple(dict.fromkeys(_DIGEST.findall(text))))
    if not isinstance(document, dict):
        return ErrorBody(text=_shown(text))
    listed = document.get("errors")
    errors = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    errors = errors or [document]
    codes = [_code(entry) for entry in errors]
    texts = [_text(entry, code) for entry, code in zip(errors, codes, strict=True)]
    return ErrorBody(
        codes=tuple(dict.fromkeys(code for code in codes if code)),
        digests=tuple(dict.fromkeys(_DIGEST.findall(text))),
        text=_shown("; ".join(dict.fromkeys(each for each in texts if each))),
    )


def _code(entry: dict[str, Any]) -> str:
    code = entry.get("code") or entry.get("__type")  # "__type": ECR's JSON API
    # Scrubbed before its case changes: a secret that it quotes would not be known any more.
    return scrub(code.rpartition("#")[2], 64).upper() if isinstance(code, str) else ""


def _text(entry: dict[str, Any], code: str) -> str:
    """One error in words: its code, its message, and what its detail names."""
    words = [entry.get(key) for key in ("message", "error_description", "error", "details", "detail")]
    message = next((word for word in words if isinstance(word, str) and word.strip()), "")
    # distribution's detail of a refusal is the scope that it wanted: no more than what was tried and where.
    detail = "" if code in _REFUSAL_CODES else ", ".join(_words(entry.get("detail")))
    if detail == message.strip():
        detail = ""
    text = ": ".join(part for part in (code, message) if part)
    return f"{text} ({detail})" if text and detail else text or detail


def _words(detail: object) -> Iterator[str]:
    """A detail as text: its own, or `key value` of a structured one; nothing of one that is nested deeper."""
    if isinstance(detail, str):
        yield detail.strip()
        return
    for each in detail[:_DETAILS] if isinstance(detail, list) else [detail]:
        if isinstance(each, dict):
            yield from (
                f"{key} {value}"
                for key, value in list(each.items())[:_DETAILS]
                if isinstance(value, str | int) and value != ""
            )


def _shown(text: str) -> str:
    return scrub(text, _SHOWN_CHARACTERS)


def reply_failure(  # noqa: C901, PLR0911 - a table; the order of its entries is the rule
    site: str, about: Operation, answer: Answer, *, now: float, hint: str = ""
) -> SiteError:
    """The error of a reply that was not expected, by status and codes.

    Args:
        site: the site's name.
        about: what was tried.
        answer: the reply.
        now: seconds since the epoch, for a Retry-After that is a date.
        hint: what a person could do, appended to the cause.
    """
    said = read_error(answer.body)
    status, codes = answer.status, frozenset(said.codes)
    cause = _status(status) + (f": {said.text}" if said.text else "") + (f" ({hint})" if hint else "")
    where, repository = (site, about.operation, cause), about.repository
    wait = retry_after(answer.headers, now)
    if status == 429 or (status >= 400 and (codes & _THROTTLE_CODES or "rate exceeded" in said.text.lower())):
        # Docker Hub's spent pull quota comes back in hours, not in this run.
        advice = Advice.LATER if "pull rate limit" in said.text.lower() else _patience(wait)
        return Throttled(*where, repository=repository, advice=advice, retry_after=wait)
    if _misses_reference(answer, codes, said.text):
        return MissingReference(*where, repository=repository, digests=said.digests)
    if "UNSUPPORTED" in codes or status in {405, 501}:
        return Unsupported(*where, repository=repository)
    if status == 404 and "BLOB_UPLOAD_UNKNOWN" not in codes:
        doubtful = codes.isdisjoint(_UNKNOWN_CODES)
        return NotFound(*where, repository=repository, doubtful=doubtful, codes=said.codes)
    if status == 401:
        return AuthFailed(*where, repository=repository)
    if status == 403:
        return Denied(*where, repository=repository)
    if status == 407:
        return Unavailable(*where, repository=repository, advice=Advice.STOP_SITE)
    if status == 503:
        return Overloaded(*where, repository=repository, advice=_patience(wait), retry_after=wait)
    if status == 408 or status >= 500:
        return Unavailable(
            *where, repository=repository, advice=_patience(wait), retry_after=wait, answered=True
        )
    if status < 400:
        where = (site, about.operation, f"unexpected answer {cause}")
    return Rejected(*where, repository=repository, codes=said.codes, status=status)


def _patience(retry_after: float | None) -> Advice | None:
    """What a wait is worth: the site is asked nothing more in a run that would have to wait longer than anybody does."""
    return Advice.STOP_SITE if retry_after is not None and retry_after > MAX_HOLD_SECONDS else None


def _misses_reference(answer: Answer, codes: frozenset[str], text: str) -> bool:
    if answer.method != "PUT" or "/manifests/" not in answer.path or not 400 <= answer.status < 500:
        return False
    return bool(codes & _MISSING_CODES) or "blob unknown to registry" in text.lower()


def _status(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds until the server wants to be asked again; None where it does not say, or not legibly.

    `Retry-After` is seconds or a date (which is taken by the server's own `Date`, so that its clock does not
    matter); `X-Retry-After` is Docker Hub's, seconds since the epoch.
    """
    if text := headers.get("Retry-After"):
        if text.isascii() and text.isdigit():
            return float(text[:9])
        at = _date(text)
        if at is not None:
            return max(0.0, at - (_date(headers.get("Date", "")) or now))
    text = headers.get("X-Retry-After", "")
    if text.isascii() and text.isdigit():
        value = float(text[:12])
        return max(0.0, value - now) if value > 1e9 else value
    return None


def _date(text: str) -> float | None:
    try:
        if len(text) > _DATE_CHARACTERS:
            return None
        return email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError, TypeError):
        return None
