"""The one place where text of others becomes text of ours, before a report, log, state, page, notification or metric.

A registry, a proxy, a token service, a store or a command may quote our own credentials in what they answer, put
escape sequences into it, or forge a line of a log. `SiteError` and `Warned` scrub what they are made of; logs scrub
each line once more.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections import OrderedDict
from typing import Final
from urllib.parse import quote, quote_plus, unquote

MASK: Final = "***"
MAX_CHARACTERS: Final = 1_000
_WORK_FACTOR: Final = 8
"""This many times the length that is kept is examined; the rest is cut off first."""
_MIN_CHARACTERS: Final = 4
_PLAIN_CHARACTERS: Final = 8
"""A shorter secret of letters alone is a word that our own messages use too; only its encodings are masked."""
_MAX_PASSING: Final = 256

_lasting: dict[str, tuple[str, ...]] = {}
_passing: OrderedDict[str, tuple[str, ...]] = OrderedDict()

# None of these can backtrack: no repetition is followed by what it may match itself, or it is bounded.
_USERINFO: Final = re.compile(r"://[^\s/@\"'<>]{1,300}@")
_QUERY: Final = re.compile(r"([?&][A-Za-z0-9_.~%\[\]-]{1,64}=)[^&\s\"'<>#)]+")
_NAMED: Final = re.compile(
    r"\b((?:x-(?:amz|goog)-[a-z-]{1,40}|_state|sig|signature|awsaccesskeyid|token|access_token|refresh_token|id_token"
    r"|identitytoken|password|passwd|secret|client_secret|secret_key|api_?key)(?:\"\s{0,4}:\s{0,4}\"|=))[^&\s\"'<>#)]+",
    re.IGNORECASE | re.ASCII,
)
_HEADER: Final = re.compile(
    r"\b((?:proxy-)?authorization[\"']?\s{0,4}[:=]\s{0,4}[\"']?(?:(?:basic|bearer|negotiate|digest|aws4-hmac-sha256)\s{1,4})?)"
    r"[^\s\"'<>,;]{4,}",
    re.IGNORECASE | re.ASCII,
)
_SCHEME: Final = re.compile(
    r"\b((?:basic|bearer|negotiate)\s{1,4})(?=[A-Za-z0-9._~+/-]{0,200}[0-9=])[A-Za-z0-9._~+/=-]{8,}",
    re.IGNORECASE | re.ASCII,
)
_JWT: Final = re.compile(r"\beyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?(?:\.[A-Za-z0-9_-]*)?", re.ASCII)
_SIGNS: Final = (
    "=",
    "@",
    "asic",
    "earer",
    "egotiate",
    "uthorization",
    "UTHORIZATION",
    "eyJ",
    "oken",
    "ecret",
    "assw",
)
"""One of these is in every text that one of the patterns changes; most texts have none."""


def remember(secret: str, *, lasting: bool = False) -> None:
    """Notes one of our own secrets, so that it is masked wherever somebody quotes it, in whatever encoding.

    Args:
        secret: a password, token, key, or the credentials of an Authorization header.
        lasting: whether it comes from the config; of others the last 256 are remembered.
    """
    known = _lasting if lasting else _passing
    if secret in known:
        if not lasting:
            _passing.move_to_end(secret)
        return
    if len(secret) < _MIN_CHARACTERS:
        return
    known[secret] = _encodings(secret)
    if len(_passing) > _MAX_PASSING:
        _passing.popitem(last=False)


def remember_login(url: str) -> None:
    """Notes the login in the URL of a proxy: the password, and the credentials of a header as either encoding makes them."""
    rest = url.partition("://")[2] or url
    login, at, _ = rest.partition("/")[0].rpartition("@")
    if not at:
        return
    user, _, password = (unquote(part) for part in login.partition(":"))
    for secret in (password, login):
        remember(secret, lasting=True)
    for charset in ("utf-8", "latin-1"):
        data = f"{user}:{password}".encode(charset, "replace")
        remember(base64.b64encode(data).decode(), lasting=True)


def masked(text: str) -> str:
    """The text without secrets: our own, user information, the values of queries, and credentials of headers."""
    for encodings in (*_lasting.values(), *_passing.values()):
        for encoded in encodings:
            if encoded in text:
                text = text.replace(encoded, MASK)
    if not any(sign in text for sign in _SIGNS):
        return text
    text = _USERINFO.sub(f"://{MASK}@", text)
    text = _HEADER.sub(rf"\1{MASK}", text)
    text = _QUERY.sub(rf"\1{MASK}", text)
    text = _NAMED.sub(rf"\1{MASK}", text)
    text = _SCHEME.sub(rf"\1{MASK}", text)
    return _JWT.sub(MASK, text)


def one_line(text: str) -> str:
    """The text with every run of white space and of what does not print (C0, C1, bidi controls) as one space."""
    if text.isascii() and text.isprintable() and "  " not in text:
        return text.strip()
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def scrub(text: str, limit: int = MAX_CHARACTERS) -> str:
    """One line of printable text without secrets, `limit` characters at most. Scrubbing twice changes nothing.

    Takes time linear in `limit`, whatever the text is.
    """
    line = one_line(masked(text[: _WORK_FACTOR * limit]))
    return line if len(line) <= limit else f"{line[: limit - 3]}..."


def _encodings(secret: str) -> tuple[str, ...]:
    data = secret.encode("utf-8", "surrogatepass")
    percent = quote(data, safe="")
    forms = {
        percent,
        percent.lower(),
        quote_plus(data),
        quote(data),
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        html.escape(secret),
        repr(secret)[1:-1],
        data.hex(),
        base64.b64encode(data).decode().rstrip("="),
        base64.urlsafe_b64encode(data).decode().rstrip("="),
    }
    forms.discard(secret)
    if secret.isascii() and secret.isalpha() and len(secret) < _PLAIN_CHARACTERS:
        forms = {form for form in forms if form.lower() != secret.lower()}
    else:
        forms.add(secret)
    # The longest first: a shorter form may be a part of it.
    return tuple(sorted((form for form in forms if len(form) >= _MIN_CHARACTERS), key=len, reverse=True))
