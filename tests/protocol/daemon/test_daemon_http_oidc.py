"""Tokens of Google's Pub/Sub at a webhook: whose are taken, and how often the issuer's keys are read."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from replicator.config.settings import OIDCSettings, WebhookSettings
from replicator.daemon.http.webhooks.oidc import (
    LEEWAY_SECONDS,
    MAX_KEYS_BYTES,
    MIN_SECONDS,
    judge,
    parse_keys,
)
from tests.fakes.notifications import VENDORS, wrapped
from tests.fakes.scripted import scripted
from tests.protocol.daemon.test_daemon_http_senders import Door, door

AUDIENCE = "https://replicator.example.com/webhooks/gcr"
EMAIL = "push@proj.iam.gserviceaccount.com"
ISSUER = "https://accounts.google.com"
NOW = 1_700_000_000
OURS = rsa.generate_private_key(public_exponent=65537, key_size=2048)
NEXT = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PUSH = VENDORS["google"].sent[0]


def jwk(key: rsa.RSAPrivateKey, name: str, **more: Any) -> dict[str, Any]:
    return {
        **jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True),
        "kid": name,
        "use": "sig",
        **more,
    }


def claims(**more: Any) -> dict[str, Any]:
    return {
        "aud": AUDIENCE, "azp": "1137", "email": EMAIL, "sub": "1137", "email_verified": True,
        "exp": NOW + 3600, "iat": NOW, "iss": ISSUER, **more,
    }  # fmt: skip


def token(key: Any = OURS, name: str | None = "k1", algorithm: str = "RS256", **more: Any) -> str:
    wanted = {each: value for each, value in claims(**more).items() if value is not None}
    return jwt.encode(wanted, key, algorithm, {} if name is None else {"kid": name})


@dataclass
class Issuer:
    """Serves a JWK set. `asked` counts."""

    keys: Any = field(default_factory=lambda: {"keys": [jwk(OURS, "k1", alg="RS256")]})
    headers: Mapping[str, str] = field(
        default_factory=lambda: {"Cache-Control": "public, max-age=20000, must-revalidate"}
    )
    status: int = 200
    asked: int = 0

    async def serve(self, request: web.Request) -> web.Response:
        self.asked += 1
        body = self.keys if isinstance(self.keys, bytes) else json.dumps(self.keys).encode()
        return web.Response(
            status=self.status, body=body, headers=self.headers, content_type="application/json"
        )


@dataclass
class World:
    at: Door
    issuer: Issuer

    async def post(self, sent: str) -> int:
        return await self.at.post(PUSH, {"Authorization": f"Bearer {sent}"})


@asynccontextmanager
async def guarded(keys: str | Path) -> AsyncIterator[Door]:
    wanted = OIDCSettings(AUDIENCE, EMAIL, ISSUER, keys)
    async with door(WebhookSettings("hook", "hub", oidc=wanted), VENDORS["google"].url) as at:
        yield at


@pytest.fixture
async def world() -> AsyncIterator[World]:
    issuer = Issuer()
    async with scripted(issuer.serve) as server, guarded(f"{server.url}/certs") as at:
        yield World(at, issuer)


async def test_push_with_the_senders_token_makes_the_rule_look(world: World) -> None:
    assert await world.post(token()) == 202
    assert await world.at.wanted() == {"proj/repo/team/app": {"1.4.2"}}
    assert await world.post(token(iss="accounts.google.com", iat=NOW + 30)) == 202
    assert world.issuer.asked == 1


NONE = jwt.encode(claims(), None, "none", {"kid": "k1"})  # type: ignore[arg-type] # no key at all
FORGED = {
    "missing": "",
    "rubbish": "a.b.c",
    "not encoded": "{}",
    "of another key": token(NEXT),
    "of an unknown key": token(NEXT, "k9"),
    "without a key's name": token(name=None),
    "unsigned": NONE,
    "by a secret": token("k" * 32, algorithm="HS256"),
    "by another algorithm": token(algorithm="RS512"),
    "cut": token()[:-4],
    "of another audience": token(aud="https://replicator.example.com/webhooks/other"),
    "of several audiences": token(aud=[AUDIENCE, "https://other.example"]),
    "without an audience": token(aud=None),
    "of another sender": token(email="me@evil.example"),
    "without a sender": token(email=None),
    "not verified": token(email_verified=False),
    "verified in words": token(email_verified="true"),
    "of another issuer": token(iss="https://accounts.google.com.evil.example"),
    "without an issuer": token(iss=None),
    "expired": token(exp=NOW - LEEWAY_SECONDS - 1, iat=NOW - 3700),
    "without an end": token(exp=None),
    "without a beginning": token(iat=None),
    "of the future": token(iat=NOW + 3600, exp=NOW + 7200),
    "not yet valid": token(nbf=NOW + 3600),
}


@pytest.mark.parametrize("sent", FORGED.values(), ids=FORGED)
async def test_forged_token_is_refused(world: World, sent: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "replicator"):
        for _ in range(2):
            assert await world.post(sent) == 401
    assert world.at.counts() == {"unauthorized": 2}
    assert not len(world.at.agent.triggers)
    (line,) = [record.getMessage() for record in caplog.records]  # once
    assert line.startswith("webhook hook: refused a token: ")
    assert world.issuer.asked <= 1


async def test_token_that_was_kept_is_refused_once_it_has_expired(world: World) -> None:
    kept = token()
    assert await world.post(kept) == 202
    world.at.agent.clock.advance(3600 + LEEWAY_SECONDS + 1)
    assert await world.post(kept) == 401
    assert world.at.counts()["unauthorized"] == 1


async def test_body_of_a_forged_token_is_not_read(world: World) -> None:
    let_go = asyncio.Event()

    async def never() -> AsyncIterator[bytes]:
        yield b"{"
        await let_go.wait()

    sends = {"Content-Type": "application/json", "Authorization": "Bearer a.b.c"}
    async with world.at.session.post("/webhooks/hook", data=never(), headers=sends) as answer:
        assert answer.status == 401
    let_go.set()


async def test_keys_are_read_again_when_they_changed_and_never_more_often_than_bounded(world: World) -> None:
    assert await world.post(token()) == 202
    world.issuer.keys = {"keys": [jwk(OURS, "k1"), jwk(NEXT, "k2")]}
    for number in range(20):
        assert await world.post(token(NEXT, f"unknown{number}")) == 401
    assert world.issuer.asked == 1
    world.at.agent.clock.advance(MIN_SECONDS)
    assert await world.post(token(NEXT, "k2")) == 202
    assert await world.post(token(NEXT, "k2")) == 202
    assert world.issuer.asked == 2
    world.at.agent.clock.advance(19_000)
    assert await world.post(token(iat=NOW + 19_000, exp=NOW + 22_000)) == 202
    assert world.issuer.asked == 2
    world.at.agent.clock.advance(1_001)  # max-age
    assert await world.post(token(iat=NOW + 20_000, exp=NOW + 23_000)) == 202
    assert world.issuer.asked == 3


async def test_key_that_is_withdrawn_no_longer_signs(world: World) -> None:
    assert await world.post(token()) == 202
    world.issuer.keys = {"keys": [jwk(NEXT, "k2")]}
    world.at.agent.clock.advance(20_001)
    assert await world.post(token(iat=NOW + 20_000, exp=NOW + 23_000)) == 401


async def test_sender_is_told_to_come_again_while_the_keys_cannot_be_read(world: World) -> None:
    world.issuer.status = 500
    assert await world.post(token()) == 503
    assert await world.post(token()) == 503
    assert world.issuer.asked == 1
    assert world.at.counts() == {"busy": 2}
    world.issuer.status = 200
    world.at.agent.clock.advance(MIN_SECONDS)
    assert await world.post(token()) == 202


async def test_old_keys_hold_for_a_day_while_new_ones_cannot_be_read(world: World) -> None:
    assert await world.post(token()) == 202
    world.issuer.status = 500
    world.at.agent.clock.advance(20_001)
    later = NOW + 20_001
    assert await world.post(token(iat=later, exp=later + 3600)) == 202
    world.at.agent.clock.advance(86_400)
    later += 86_400
    assert await world.post(token(iat=later, exp=later + 3600)) == 503


@pytest.mark.parametrize(
    "keys",
    [
        b"",
        b"[]",
        b"{}",
        {"keys": {}},
        {"keys": []},
        {"keys": [None, 7, {"kty": "RSA", "kid": "k1"}, {"kty": "RSA", "kid": "k1", "n": "!", "e": 7}]},
        {"keys": [jwk(OURS, "k1", use="enc")]},
        {"keys": [jwk(OURS, "k1", alg="RS512")]},
        {"keys": [jwk(OURS, "k1", kty="EC")]},
        {"keys": [jwk(OURS, str(number)) for number in range(33)]},
        b" " * MAX_KEYS_BYTES + json.dumps({"keys": [jwk(OURS, "k1")]}).encode(),
    ],
)
async def test_what_is_no_set_of_keys_opens_no_door(world: World, keys: Any) -> None:
    world.issuer.keys = keys
    assert await world.post(token()) == 503
    assert not len(world.at.agent.triggers)


def test_weak_and_huge_keys_are_passed_over() -> None:
    small = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - that is the point
    huge = base64.urlsafe_b64encode(b"\xff" * 2048).rstrip(b"=").decode()
    found = parse_keys(
        json.dumps({"keys": [jwk(small, "a"), jwk(OURS, "b", n=huge), jwk(OURS, "c")]}).encode()
    )
    assert list(found) == ["c"]


async def test_redirect_to_other_keys_is_not_followed(world: World) -> None:
    world.issuer.status, world.issuer.headers = 302, {"Location": "/other"}
    assert await world.post(token()) == 503
    assert world.issuer.asked == 1


async def test_keys_are_read_from_a_file_which_may_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "certs.json"
    path.write_text(json.dumps({"keys": [jwk(OURS, "k1")]}))
    async with guarded(path) as at:
        world = World(at, Issuer())
        assert await world.post(token()) == 202
        path.write_text(json.dumps({"keys": [jwk(NEXT, "k2")]}))
        at.agent.clock.advance(MIN_SECONDS)
        assert await world.post(token(NEXT, "k2")) == 202
        assert await world.post(token()) == 401


async def test_message_of_another_kind_is_ignored(world: World) -> None:
    sent = type(PUSH)(wrapped({"hello": "world"}))
    assert await world.at.post(sent, {"Authorization": f"Bearer {token()}"}) == 202
    assert world.at.counts() == {"ignored": 1}


ANY = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.lists(st.text(max_size=3), max_size=2)
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(claims(), ANY)))
def test_only_the_right_claims_are_right(odd: dict[str, Any]) -> None:
    wanted = OIDCSettings(AUDIENCE, EMAIL, ISSUER, "")
    assert judge(claims(), wanted, NOW) is None
    for name, value in odd.items():
        if name in {"aud", "email", "email_verified", "iss"} and value is not True:
            assert judge(claims(**{name: value}), wanted, NOW) is not None
    assert judge(odd, wanted, NOW) is not None
