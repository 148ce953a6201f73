"""Each kind of notification, from the request to the rule that looks: what it announces, and who may say so."""

from __future__ import annotations

import asyncio
import dataclasses
import hmac
import logging
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from msgspec.structs import replace

from replicator.config.settings import HMACSettings, SecretHeader, WebhookSettings
from replicator.daemon.http.server import listen
from replicator.notifications.format import MAX_EVENTS
from replicator.policy.pattern import Glob
from replicator.policy.rule import RepositorySelection
from replicator.sites.registry.vendors.senders import FORMATS
from tests.fakes.agent import FakeAgent, config, literal, simple_rule
from tests.fakes.notifications import VENDORS, Sent

SECRET = "open-sesame"


class Door:
    """An agent with one webhook, `hook`, of the site `hub`, and a rule for all that is there."""

    def __init__(self, agent: FakeAgent, session: aiohttp.ClientSession, counts: Any) -> None:
        self.agent = agent
        self.session = session
        self.counts = counts

    async def post(self, sent: Sent, headers: dict[str, str] | None = None, query: str = "") -> int:
        sends = {**sent.headers, "Content-Type": sent.media_type, **(headers or {})}
        async with self.session.post(f"/webhooks/hook{query}", data=sent.raw, headers=sends) as answer:
            return answer.status

    async def wanted(self) -> dict[str, set[str] | None]:
        """What the rule is to look at, once what came was passed on."""
        async with asyncio.timeout(30):
            while not len(self.agent.triggers):  # noqa: ASYNC110 - the loop has to turn for the clock to jump
                await asyncio.sleep(0)
        want = self.agent.wanted("all", "fra")
        assert want is not None
        assert want.cause == "webhook"
        return {name: None if tags is None else set(tags) for name, tags in want.repositories.items()}


@asynccontextmanager
async def door(
    hook: WebhookSettings, url: str | None = "https://hub.example", selected: str = "**"
) -> AsyncIterator[Door]:
    rule = replace(
        simple_rule("all"), repositories=RepositorySelection(include=(Glob.parse(selected),), exclude=())
    )
    agent = FakeAgent(rule, loaded=config(webhooks={"hook": hook}, sites={} if url is None else {"hub": url}))
    with agent.webhooks() as counts:
        async with listen(agent) as base, aiohttp.ClientSession(base) as session:
            yield Door(agent, session, counts)


def hook_of(kind: str, **more: Any) -> WebhookSettings:
    """A hook that its kind's senders can authenticate to, and (`headers_of`) the headers that do."""
    plain = WebhookSettings("hook", "hub", kind=kind)
    sender = FORMATS[kind]
    if sender.signature is not None:
        signing = HMACSettings(sender.signature.header, literal(SECRET), sender.signature.algorithm)
        return replace(plain, hmac=signing, **more)
    if sender.secret_header is not None:
        return replace(plain, header=SecretHeader(sender.secret_header, literal(SECRET)), **more)
    if kind in {"quay", "dockerhub", "alibaba"}:  # can send no header
        return replace(plain, url_token=literal(SECRET), **more)
    if kind == "ecr":  # the API key of an EventBridge connection
        return replace(plain, header=SecretHeader("X-Api-Key", literal(SECRET)), **more)
    return replace(plain, token=literal(SECRET), **more)


def proof(hook: WebhookSettings, body: bytes, secret: str = SECRET) -> tuple[dict[str, str], str]:
    """The headers and query with which a sender shows that it has the secret."""
    if hook.hmac is not None:
        return {hook.hmac.header: hmac.new(secret.encode(), body, hook.hmac.algorithm).hexdigest()}, ""
    if hook.header is not None:
        return {hook.header.name: secret}, ""
    if hook.url_token is not None:
        return {}, f"?token={secret}"
    return {"Authorization": secret}, ""


@pytest.mark.parametrize("kind", sorted(FORMATS))
async def test_push_makes_the_rule_look_at_the_tag(kind: str) -> None:
    vendor, hook = VENDORS[kind], hook_of(kind)
    sent = vendor.sent[0]
    async with door(hook, vendor.url) as at:
        assert await at.post(sent, *proof(hook, sent.raw)) == 202
        assert await at.wanted() == {vendor.repository: {"1.4.2"}}
        assert at.counts() == {"matched": 1}


@pytest.mark.parametrize("kind", sorted(FORMATS))
async def test_sender_without_the_secret_is_refused(kind: str) -> None:
    vendor, hook = VENDORS[kind], hook_of(kind)
    sent = vendor.sent[0]
    async with door(hook, vendor.url) as at:
        assert await at.post(sent, {"X-Gitlab-Token": ""}) == 401
        assert await at.post(sent, *proof(hook, sent.raw, "open-barley")) == 401
        assert await at.post(sent, *proof(hook, sent.raw + b" ", SECRET[:-1])) == 401
        assert at.counts() == {"unauthorized": 3}
        assert not len(at.agent.triggers)


@pytest.mark.parametrize("kind", sorted(kind for kind, each in FORMATS.items() if each.signature))
async def test_signature_is_over_the_body_and_by_the_right_hash(kind: str) -> None:
    vendor, hook = VENDORS[kind], hook_of(kind)
    assert hook.hmac is not None
    sent = vendor.sent[0]
    other = "sha1" if hook.hmac.algorithm == "sha256" else "sha256"
    async with door(hook, vendor.url) as at:
        right, _ = proof(hook, sent.raw)
        assert await at.post(dataclasses.replace(sent, body=sent.raw + b" "), right) == 401
        wrong = hmac.new(SECRET.encode(), sent.raw, other).hexdigest()
        assert await at.post(sent, {hook.hmac.header: wrong}) == 401
        assert await at.post(sent, {hook.hmac.header: SECRET}) == 401
        prefixed = f"{hook.hmac.algorithm}={right[hook.hmac.header]}"
        assert await at.post(sent, {hook.hmac.header: prefixed}) == 202


@pytest.mark.parametrize("kind", sorted(FORMATS))
async def test_what_announces_no_push_is_accepted_and_counted_as_ignored(kind: str) -> None:
    vendor, hook = VENDORS[kind], hook_of(kind)
    quiet = [each for each in vendor.sent if each.announced == (None,)]
    async with door(hook, vendor.url) as at:
        for sent in quiet:
            assert await at.post(sent, *proof(hook, sent.raw)) == 202, sent.body
        assert at.counts() == ({"ignored": len(quiet)} if quiet else {})
        assert not len(at.agent.triggers)


@pytest.mark.parametrize("kind", sorted(kind for kind, vendor in VENDORS.items() if vendor.foreign))
async def test_notification_of_another_registry_is_refused_and_logged_once(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    vendor, hook = VENDORS[kind], hook_of(kind)
    foreign = vendor.foreign
    assert foreign is not None
    status = 202 if FORMATS[kind].redelivers else 403  # Pub/Sub would send it for days
    async with door(hook, vendor.url) as at:
        with caplog.at_level(logging.WARNING, "replicator"):
            for _ in range(3):
                assert await at.post(foreign, *proof(hook, foreign.raw)) == status
        assert at.counts() == {"other_registry": 3}
        assert not len(at.agent.triggers)
    (line,) = [record.getMessage() for record in caplog.records]
    assert f"webhook hook: refused a {kind} notification from the registry " in line
    assert f"the site hub is {vendor.url}" in line
    assert "webhook.hook.hosts" in line


async def test_other_names_of_the_registry_are_configured() -> None:
    sent = VENDORS["harbor"].sent[0]
    hook = hook_of("harbor", hosts=frozenset({"harbor.example"}))
    for url in ("https://10.0.0.9:8443", "https://registry.internal"):
        async with door(hook, url) as at:
            assert await at.post(sent, *proof(hook, sent.raw)) == 202
            assert at.counts() == {"matched": 1}


@pytest.mark.parametrize(
    ("kind", "url", "selected", "wanted"),
    [
        ("nexus", "https://nexus.example", "docker-hosted/**", "docker-hosted/team/app"),
        ("nexus", "https://nexus.example", "team/**", "team/app"),
        ("nexus", "https://nexus.example", "**", "team/app"),
        ("artifactory", "https://acme.jfrog.io", "docker-local/**", "docker-local/team/app"),
        ("artifactory", "https://acme.jfrog.io", "team/**", "team/app"),
        ("artifactory", "https://acme.jfrog.io", "**", "docker-local/team/app"),
    ],
)
async def test_of_two_possible_names_the_one_that_a_rule_selects_is_scanned(
    kind: str, url: str, selected: str, wanted: str
) -> None:
    hook, sent = hook_of(kind), VENDORS[kind].sent[0]
    async with door(hook, url, selected) as at:
        assert await at.post(sent, *proof(hook, sent.raw)) == 202
        assert await at.wanted() == {wanted: {"1.4.2"}}
        assert at.counts() == {"matched": 1}


@pytest.mark.parametrize(
    ("hosts", "outcome"),
    [((), "matched"), (("harbor.example",), "matched"), (("other.example",), "other_registry")],
)
async def test_bucket_has_no_host_to_compare_unless_one_is_configured(
    hosts: tuple[str, ...], outcome: str
) -> None:
    hook, sent = hook_of("harbor", hosts=frozenset(hosts)), VENDORS["harbor"].sent[0]
    async with door(hook, None) as at:
        assert await at.post(sent, *proof(hook, sent.raw)) == (202 if outcome == "matched" else 403)
        assert at.counts() == {outcome: 1}


async def test_one_event_of_another_registry_does_not_spoil_the_others() -> None:
    sent = VENDORS["harbor"].sent[0]
    resources = sent.body["event_data"]["resources"]
    odd = [None, {"tag": 7}, {**resources[0], "resource_url": "other.example/team/app:1.4.2"}]
    body = {**sent.body, "event_data": {**sent.body["event_data"], "resources": [*odd, *resources]}}
    hook = hook_of("harbor")
    async with door(hook, VENDORS["harbor"].url) as at:
        assert await at.post(Sent(body), *proof(hook, b"")) == 202
        assert at.counts() == {"ignored": 2, "other_registry": 1, "matched": 1}
        assert await at.wanted() == {"team/app": {"1.4.2"}}


@pytest.mark.parametrize("kind", sorted(FORMATS))
async def test_hook_of_another_kind_refuses(kind: str) -> None:
    other = "quay" if kind != "quay" else "harbor"
    hook = WebhookSettings("hook", "hub", kind=other, token=literal(SECRET))
    sent = VENDORS[kind].sent[0]
    async with door(hook) as at:
        assert await at.post(sent, {"Authorization": f"Bearer {SECRET}"}) in {400, 415}
        assert at.counts() == {"malformed": 1}


@pytest.mark.parametrize("kind", ["distribution", "harbor", "quay"])
async def test_more_events_than_a_registry_sends_are_refused(kind: str) -> None:
    harbor, quay = VENDORS["harbor"].sent[0].body, VENDORS["quay"].sent[0].body

    def body(count: int) -> dict[str, Any]:
        nulls = [None] * count
        if kind == "distribution":
            return {"events": nulls}
        if kind == "quay":
            return {**quay, "updated_tags": nulls}
        return {**harbor, "event_data": {**harbor["event_data"], "resources": nulls}}

    hook = hook_of(kind)
    async with door(hook, VENDORS[kind].url) as at:
        for count, status in ((MAX_EVENTS, 202), (MAX_EVENTS + 1, 413)):
            sent = Sent(body(count))
            assert await at.post(sent, *proof(hook, sent.raw)) == status
        assert at.counts() == {"ignored": MAX_EVENTS, "too_large": 1}
        assert not len(at.agent.triggers)


async def test_token_is_taken_as_the_password_of_basic() -> None:
    sent = VENDORS["zot"].sent[0]
    hook = hook_of("zot")
    async with door(hook, VENDORS["zot"].url) as at:
        for user, status in (("", 202), ("zot", 202), (SECRET, 401)):
            password = SECRET if status == 202 else "x"
            basic = b64encode(f"{user}:{password}".encode()).decode()
            assert await at.post(sent, {"Authorization": f"Basic {basic}"}) == status


async def test_same_announcement_by_every_kind_is_one_look() -> None:
    """A hook without a kind takes whatever comes."""
    hook = WebhookSettings(
        "hook", "hub", token=literal(SECRET), hosts=frozenset(e.announced[0][3] or "" for v in VENDORS.values() for e in v.sent[:1] if e.announced[0])
    )  # fmt: skip
    async with door(hook) as at:
        for kind, vendor in VENDORS.items():
            if kind not in {"google", "artifactory", "nexus"}:
                assert await at.post(vendor.sent[0], {"Authorization": SECRET}) == 202, kind
        assert await at.wanted() == {"team/app": {"1.4.2"}}
        assert at.counts() == {"matched": len(VENDORS) - 3}
