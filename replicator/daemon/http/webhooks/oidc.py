"""Verifies the OpenID Connect tokens of webhooks: Google's Pub/Sub sends one with each push.

https://cloud.google.com/pubsub/docs/authenticate-push-subscriptions, OpenID Connect Core 1.0 section 3.1.3.7
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import aiohttp
import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from replicator.config.settings import OIDCSettings
from replicator.daemon.http.auth import same
from replicator.errors import ReplicatorError
from replicator.model.strictjson import read_object
from replicator.ports import Clock
from replicator.scrub import scrub

ALGORITHM: Final = "RS256"
LEEWAY_SECONDS: Final = 60.0
"""Tolerated clock difference."""
MAX_KEYS_BYTES: Final = 64 * 1024
MAX_KEYS: Final = 32
KEY_BITS: Final = range(2048, 8193)
"""Smaller keys are insecure, larger ones are expensive to verify with."""
READ_SECONDS: Final = 10.0
MIN_SECONDS: Final = 60.0
"""Between two attempts to read the keys, so that tokens with unknown keys do not cause a request each."""
MAX_AGE_SECONDS: Final = (60.0, 3600.0, 86_400.0)
"""How long keys are fresh: minimum, default and maximum. If they cannot be renewed, they are used for the maximum longer."""

_GOOGLE: Final = "https://accounts.google.com"
_MAX_AGE: Final = re.compile(r"(?:^|[,\s])max-age=(\d{1,9})(?:$|[,\s;])")


class BadToken(ReplicatorError):
    """The token is invalid. Says why, without quoting the token."""


class NoKeys(ReplicatorError):
    """The issuer's keys cannot be read, so the token cannot be checked."""


class IssuerKeys:
    """The public keys of an issuer, read on demand and cached while they are fresh.

    Args:
        place: a URL or a file with a JWK set.
        clock: the time.
    """

    def __init__(self, place: str | Path, clock: Clock) -> None:
        self._place = place
        self._clock = clock
        self._lock = asyncio.Lock()
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._fresh_until = self._next_reading = float("-inf")
        self._problem: str | None = None

    async def find(self, name: str) -> jwt.PyJWK:
        """The key of this name (`kid`).

        Raises:
            BadToken: the issuer does not have the key.
            NoKeys: the keys cannot be read, and the cached ones are too old or lack it.
        """
        async with self._lock:
            now = self._clock.monotonic()
            if (name not in self._keys or now >= self._fresh_until) and now >= self._next_reading:
                await self._read(now)
        if self._problem is not None and now >= self._fresh_until + MAX_AGE_SECONDS[2]:
            self._keys = {}
        if name in self._keys:
            return self._keys[name]
        if self._problem is not None:
            raise NoKeys(self._problem)
        raise BadToken("signed with an unknown key")

    async def _read(self, now: float) -> None:
        self._next_reading = now + MIN_SECONDS
        try:
            if isinstance(self._place, Path):
                body, seconds = await asyncio.to_thread(_read_file, self._place), MAX_AGE_SECONDS[0]
            else:
                body, seconds = await _fetch(self._place)
            self._keys = parse_keys(body)
        except (ValueError, OSError, TimeoutError, aiohttp.ClientError) as error:
            self._problem = (
                f"the keys at {self._place} cannot be read: {scrub(str(error) or type(error).__name__)}"
            )
            return
        self._problem, self._fresh_until = None, now + seconds


def _read_file(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_KEYS_BYTES + 1)


async def _fetch(url: str) -> tuple[bytes, float]:
    """The body, and for how many seconds it is fresh."""
    async with (
        aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=READ_SECONDS), trust_env=True, auto_decompress=False
        ) as session,
        session.get(
            url, allow_redirects=False, headers={"Accept": "application/json", "Accept-Encoding": "identity"}
        ) as answer,
    ):
        if answer.status != 200:
            raise ValueError(f"answered {answer.status}")
        body = bytearray()
        async for chunk in answer.content.iter_any():
            body += chunk
            if len(body) > MAX_KEYS_BYTES:
                break
        told = _MAX_AGE.search(answer.headers.get("Cache-Control", ""))
        least, usual, most = MAX_AGE_SECONDS
        return bytes(body), min(max(float(told[1]), least), most) if told else usual


def parse_keys(body: bytes) -> Mapping[str, jwt.PyJWK]:
    """The RSA signing keys of a JWK set (RFC 7517), by `kid`. Other keys are skipped.

    Raises:
        ValueError: not a JWK set, too large, or without such a key.
    """
    if len(body) > MAX_KEYS_BYTES:
        raise ValueError(f"more than {MAX_KEYS_BYTES} bytes")
    listed = read_object(body).get("keys")
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise ValueError(f"not a JWK set of at most {MAX_KEYS} keys")
    found: dict[str, jwt.PyJWK] = {}
    for each in listed:
        if not isinstance(each, dict) or each.get("kty") != "RSA" or each.get("use", "sig") != "sig":
            continue
        name, algorithm = each.get("kid"), each.get("alg", ALGORITHM)
        if not isinstance(name, str) or algorithm != ALGORITHM:
            continue
        try:
            key = jwt.PyJWK(each, ALGORITHM)
        except (jwt.PyJWTError, ValueError, TypeError):
            continue
        if isinstance(key.key, RSAPublicKey) and key.key.key_size in KEY_BITS:
            found[name] = key
    if not found:
        raise ValueError("no RSA signing key")
    return found


async def verify(token: str, wanted: OIDCSettings, keys: IssuerKeys, now: float) -> None:
    """Returns if the token is valid at `now` (epoch seconds): signature, issuer, audience, sender and time.

    Raises:
        BadToken: it is not. Claims are quoted only if the signature is valid.
        NoKeys: see `IssuerKeys.find`.
    """
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise BadToken("not a JSON Web Token") from None
    name = header.get("kid")
    if header.get("alg") != ALGORITHM or not isinstance(name, str):
        raise BadToken(f"not signed with {ALGORITHM} and a named key")
    try:
        claims = jwt.decode(
            token,
            await keys.find(name),
            algorithms=[ALGORITHM],
            # claims are checked below, by the agent's clock
            options={"verify_aud": False, "verify_iss": False, "verify_exp": False, "verify_iat": False, "verify_nbf": False},
        )  # fmt: skip
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise BadToken("invalid signature") from None
    problem = judge(claims, wanted, now)
    if problem:
        raise BadToken(problem)


def judge(claims: Mapping[str, Any], wanted: OIDCSettings, now: float) -> str | None:
    """What is wrong with the claims of a token, None if nothing is. `now` in epoch seconds."""
    issuer = claims.get("iss")
    if issuer != wanted.issuer and (wanted.issuer, issuer) != (_GOOGLE, _GOOGLE.removeprefix("https://")):
        return f"the issuer is {_quoted(issuer)}, not {wanted.issuer}"
    if claims.get("aud") != wanted.audience:
        return f"the audience is {_quoted(claims.get('aud'))}, not {wanted.audience}"
    email = claims.get("email")
    if not isinstance(email, str) or not same(email, wanted.email):
        return f"the email is {_quoted(email)}, not {wanted.email}"
    if claims.get("email_verified") is not True:
        return "the email is not verified"
    return _time_problem(claims, now)


def _time_problem(claims: Mapping[str, Any], now: float) -> str | None:
    expires, issued, begins = _time(claims, "exp"), _time(claims, "iat"), _time(claims, "nbf")
    if expires is None or expires <= now - LEEWAY_SECONDS:
        return "expired"
    if issued is None or max(issued, begins or 0) > now + LEEWAY_SECONDS:
        return "not valid yet"
    return None


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _quoted(claimed: Any) -> str:
    return repr(scrub(claimed, 200)) if isinstance(claimed, str) else "missing"
