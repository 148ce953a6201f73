"""Copies that are signed at their destination, before their tag shows them."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from msgspec.structs import replace

from replicator.demo.images import BuiltImage, image, index
from replicator.model.companion import fallback_tag
from replicator.policy.rule import Rule
from replicator.trust.policy import Signing, TrustPolicy
from replicator.trust.shapes import signature_layers
from replicator.trust.signing import MIRRORED, check_signing_key, signature_of
from replicator.trust.verify import Signature, Subject, Trial
from tests.engine.world import World, rule, world
from tests.fakes.memory import MemorySite
from tests.fakes.signing import Signer

KEY = Signer.ecdsa()
SIGNING = Signing(
    KEY.private_pem.decode,
    "agent-1",
    hosts=(("source", "hub.example.com"), ("left", "fra.example.com")),
)


def signing(**more: Any) -> Rule:
    return replace(rule(), sign=replace(SIGNING, **more))


def bundles(site: MemorySite, subject: BuiltImage) -> list[Signature]:
    content = site.store.repositories["app"]
    listed = site.store.referrers("app", subject.digest)
    layers = [
        layer for one in listed for layer in signature_layers(content.manifests[one.digest], one.digest)
    ]
    return [
        Signature(each.where, each.form, site.store.blob("app", each.blob.digest).data) for each in layers
    ]


def trusts(policy: TrustPolicy, w: World, subject: BuiltImage) -> bool:
    trial = Trial([policy], Subject(subject.digest, "app", subject.manifest.body))
    for each in bundles(w.left, subject):
        trial.examine(each)
    return trial.is_trusted


async def test_a_copy_is_signed_and_says_where_it_came_from() -> None:
    async with world() as w:
        root = w.put("app", "v1", index([image("child")]))
        await w.sync_one(signing())
        assert w.tags() == {"app": {"v1": root.digest}}
        assert trusts(TrustPolicy("ours", (KEY.key,)), w, root)
        assert trusts(TrustPolicy("ours", (KEY.key,), attestations=(MIRRORED,)), w, root)
        said = [json.loads(each.body)["dsseEnvelope"]["payload"] for each in bundles(w.left, root)]
        assert len(said) == 2
        assert not w.source.store.referrers("app", root.digest)


async def test_the_statement_says_who_copied_what_from_where_and_when() -> None:
    async with world() as w:
        root = w.put("app", "v1")
        await w.sync_one(signing())
        statements = [
            json.loads(base64.b64decode(json.loads(each.body)["dsseEnvelope"]["payload"]))
            for each in bundles(w.left, root)
        ]
        (about,) = [each["predicate"] for each in statements if each["predicateType"] == MIRRORED]
        assert about.pop("copiedAt").endswith("Z")
        assert about == {
            "source": "hub.example.com/app:v1",
            "destination": "fra.example.com/app:v1",
            "sourceDigest": root.digest,
            "agent": "agent-1",
            "rule": "rule",
        }


async def test_copying_again_adds_no_second_signature() -> None:
    async with world() as w:
        root = w.put("app", "v1")
        await w.sync_one(signing(statement=False))
        w.left.store.delete_tag("app", "v1")
        w.forget()
        await w.sync_one(signing(statement=False))
        assert len(bundles(w.left, root)) == 1


async def test_signatures_are_found_by_the_fallback_tag_too() -> None:
    async with world() as w:
        w.left.referrers_api = False
        root = w.put("app", "v1")
        await w.sync_one(signing())
        content = w.left.store.repositories["app"]
        listed = content.manifests[content.tags[fallback_tag(root.digest)]]
        assert len(listed.children) == 2


async def test_a_plan_signs_nothing() -> None:
    async with world() as w:
        w.put("app", "v1")
        await w.plan_one(signing())
        assert not w.left.store.repositories


@pytest.mark.parametrize(
    ("pem", "says"),
    [
        ("", "not a PEM private key"),
        (KEY.pem.decode(), "not a PEM private key"),
        (Signer.ecdsa(curve=ec.SECP384R1()).private_pem.decode(), "must be an ECDSA P-256 key"),
        ("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nx", "is an encrypted key"),
        (
            KEY.private.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(b"x"),
            ).decode(),
            "is an encrypted key",
        ),
    ],
)
def test_a_key_that_cannot_sign_is_refused_without_quoting_it(pem: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        check_signing_key(pem)
    assert len(pem) < 60 or pem[40:60] not in str(caught.value)


@pytest.mark.parametrize("signer", [KEY, Signer(rsa.generate_private_key(65537, 2048))], ids=["ECDSA", "RSA"])
def test_signing_twice_gives_the_same_bytes(signer: Signer) -> None:
    pem, descriptor = signer.private_pem.decode(), image("x").manifest.descriptor
    assert signature_of(pem, descriptor) == signature_of(pem, descriptor)
