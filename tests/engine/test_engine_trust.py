"""Images that lack the signatures a rule demands are held; nothing of them moves."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace

from replicator.demo.images import BuiltImage, image, index, load
from replicator.demo.store import Blob
from replicator.errors import Unavailable
from replicator.events import RunEnded, TagUntrusted
from replicator.model.companion import fallback_tag
from replicator.policy.rule import Rule
from replicator.trust.policy import TrustPolicy
from tests.engine.world import World, rule, world
from tests.fakes.referrers import NOTATION, referrer
from tests.fakes.signing import (
    PROVENANCE,
    Signer,
    att_tag,
    bundle,
    bundle_referrer,
    envelope,
    legacy,
    payload,
    sig_tag,
    statement,
)

KEY, OTHER = Signer.ecdsa(), Signer.ecdsa("other.pub")
POLICY = TrustPolicy("release keys", keys=(KEY.key,))


def trusting(*policies: TrustPolicy, **more: Any) -> Rule:
    return replace(rule(), trust=policies or (POLICY,), **more)


def attach(w: World, built: BuiltImage, tag: str | None = None) -> None:
    load(w.source.store, "app", tag, built)


def sign(w: World, image: BuiltImage, signer: Signer = KEY) -> None:
    attach(w, bundle_referrer(image, bundle(signer, image.digest)))


async def test_signed_images_are_copied_with_their_signatures_and_others_are_held() -> None:
    async with world() as w:
        good, bad = w.put("app", "good"), w.put("app", "bad")
        sign(w, good)
        sign(w, bad, OTHER)
        result = await w.sync_one(trusting())
        assert w.tags() == {"app": {"good": good.digest}}
        assert w.left.store.referrers("app", good.digest)
        assert bad.digest not in w.left.store.repositories["app"].manifests
        assert result.outcome == "ok"
        assert (result.totals.tags.copied, result.totals.tags.held) == (1, 1)
        held = next(row for row in result.actions if row.outcome == "held")
        assert held.tag == "bad"
        assert held.reason is not None
        assert held.reason.startswith("not trusted: release keys: no valid signature: referrer sha256:")
        assert held.reason.endswith("not signed by release.pub")
        assert held.hold == "signatures"


async def test_nothing_of_an_untrusted_image_moves_not_even_between_sites() -> None:
    async with world() as w:
        w.put("app", "v1")
        await w.sync_one(trusting())
        assert not w.left.store.repositories.get("app") or not w.left.store.repositories["app"].blobs
        assert not w.source.count("open_blob")
        [told] = [event for event in w.seen if isinstance(event, TagUntrusted)]
        assert (told.repository, told.tag, told.reason) == (
            "app",
            "v1",
            "release keys: no signature: no signatures found",
        )
        [ended] = [event for event in w.seen if isinstance(event, RunEnded)]
        assert ended.untrusted == frozenset({"app:v1"})


async def test_a_plan_says_what_would_be_held() -> None:
    async with world() as w:
        w.put("app", "v1")
        result = await w.plan_one(trusting())
        assert [row.outcome for row in result.actions] == ["held"]
        assert not [event for event in w.seen if isinstance(event, TagUntrusted)]


async def test_a_signature_that_arrives_later_lets_the_image_through() -> None:
    async with world() as w:
        v1 = w.put("app", "v1")
        engine = w.engine()
        await engine.sync([trusting()])
        assert w.tags() == {}
        sign(w, v1)
        await engine.sync([trusting()])
        assert w.tags() == {"app": {"v1": v1.digest}}


async def test_older_signatures_and_attestations_let_an_image_through() -> None:
    async with world() as w:
        v1, v2 = w.put("app", "v1"), w.put("app", "v2")
        attach(w, sig_tag(legacy(KEY, payload(v1.digest))), fallback_tag(v1.digest) + ".sig")
        attested = json.dumps(envelope(KEY, statement(v2.digest, PROVENANCE))).encode()
        attach(w, att_tag(attested), fallback_tag(v2.digest) + ".att")
        await w.sync_one(trusting())
        assert w.tags()["app"].keys() == {"v1", fallback_tag(v1.digest) + ".sig"}
        await w.sync_one(trusting(replace(POLICY, attestations=(PROVENANCE,))))
        assert "v2" in w.tags()["app"]


async def test_signatures_in_a_fallback_tag_count() -> None:
    async with world() as w:
        w.source.referrers_api = False
        v1 = w.put("app", "v1")
        signature = bundle_referrer(v1, bundle(KEY, v1.digest))
        attach(w, index([signature]), fallback_tag(v1.digest))
        await w.sync_one(trusting())
        assert w.tags()["app"]["v1"] == v1.digest


async def test_a_signed_platform_does_not_vouch_for_the_index() -> None:
    async with world() as w:
        child = image("child")
        root = w.put("app", "v1", index([child]))
        sign(w, child)
        result = await w.sync_one(trusting())
        assert w.tags() == {}
        assert "no signatures found" in (result.actions[0].reason or "")
        sign(w, root)
        await w.sync_one(trusting())
        assert w.tags()["app"]["v1"] == root.digest


async def test_a_signature_with_another_subject_does_not_count() -> None:
    """The registry's list says one thing, the manifest another."""
    async with world() as w:
        w.source.referrers_api = False
        v1, other = w.put("app", "v1"), w.put("app", "other")
        strayed = bundle_referrer(other, bundle(KEY, v1.digest))
        attach(w, index([strayed]), fallback_tag(v1.digest))
        result = await w.sync_one(trusting())
        assert "v1" not in w.tags().get("app", {})
        assert any("does not refer to the image" in (row.reason or "") for row in result.actions)


@pytest.mark.parametrize("more", [10 * 1024 * 1024, 100_000_000])
async def test_a_signature_too_large_is_never_read(more: int) -> None:
    async with world() as w:
        v1 = w.put("app", "v1")
        huge = bundle_referrer(v1, bundle(KEY, v1.digest) + b" " * more)
        attach(w, huge)
        result = await w.sync_one(trusting())
        assert "more than 10485760" in (result.actions[0].reason or "")
        assert not w.source.count("open_blob")


async def test_an_older_signature_too_large_is_never_read() -> None:
    async with world() as w:
        v1 = w.put("app", "v1")
        huge = legacy(KEY, payload(v1.digest, padding="x" * 100_000_000))
        attach(w, sig_tag(huge), fallback_tag(v1.digest) + ".sig")
        result = await w.sync_one(trusting())
        assert "more than 1048576" in (result.actions[0].reason or "")
        assert not w.source.count("open_blob")


async def test_of_a_thousand_and_one_signatures_the_newest_hundred_are_examined() -> None:
    async with world() as w:
        v1 = w.put("app", "v1")
        many = [
            legacy(OTHER, payload(v1.digest, number=str(number))) for number in range(999)
        ]  # another signer's
        tag = fallback_tag(v1.digest) + ".sig"
        attach(w, sig_tag(legacy(KEY, payload(v1.digest)), *many), tag)
        result = await w.sync_one(trusting())
        assert "(too many signatures: 100 were examined, 900 more were not)" in (
            result.actions[0].reason or ""
        )
        assert w.source.count("open_blob") == 100
        attach(w, sig_tag(*many, legacy(KEY, payload(v1.digest))), tag)  # cosign appends
        await w.sync_one(trusting())
        assert "v1" in w.tags()["app"]
        attach(w, sig_tag(*many, *many[:2]), tag)
        v1 = w.put("app", "v2")
        attach(w, sig_tag(*many, *many[:2]), fallback_tag(v1.digest) + ".sig")
        result = await w.sync_one(trusting())
        assert any("1001 layers, more than 1000" in (row.reason or "") for row in result.actions)


async def test_the_newest_of_many_referrers_are_examined_first() -> None:
    async with world() as w:
        v1 = w.put("app", "v1")
        for number in range(150):
            old = bundle(OTHER, v1.digest, annotations={"n": str(number)})
            attach(w, bundle_referrer(v1, old, created=f"2024-01-01T00:{number // 60:02}:{number % 60:02}Z"))
        attach(w, bundle_referrer(v1, bundle(KEY, v1.digest), created="2026-01-01T00:00:00Z"))
        await w.sync_one(trusting(referrers="none"))
        assert w.tags() == {"app": {"v1": v1.digest}}
        assert w.source.count("referrers") == 1


async def test_a_source_that_does_not_list_referrers_is_a_failure_not_a_verdict() -> None:
    async with world() as w:
        v1 = w.put("app", "v1")
        sign(w, v1)
        w.source.fail("referrers", Unavailable("source", "list referrers", "503"))
        result = await w.sync_one(trusting())
        assert result.outcome == "failed"
        assert not [event for event in w.seen if isinstance(event, TagUntrusted)]


async def test_verdicts_are_remembered_while_image_policy_and_signatures_stay() -> None:
    async with world() as w:
        v1 = w.put("app", "v1")
        sign(w, v1, OTHER)
        engine = w.engine()
        await engine.sync([trusting()])
        w.clear_log()
        await engine.sync([trusting()])
        assert not w.source.count("open_blob")
        assert w.source.count("referrers") == 1


async def test_where_nothing_changed_trust_costs_no_request() -> None:
    async with world() as w:
        v1 = w.put("app", "v1")
        sign(w, v1)
        await w.sync_one(trusting())
        w.clear_log()
        await w.sync_one(trusting())
        with_trust = len(w.source.operations)
        w.clear_log()
        await w.sync_one(rule())
        assert with_trust == len(w.source.operations)


async def test_what_was_asked_to_check_trust_is_not_asked_again_to_copy() -> None:
    """The rule names its tag, so that no listing of the repository tells which older tags exist."""
    async with world() as w:
        v1 = w.put("app", "v1")
        tag = fallback_tag(v1.digest)
        sign(w, v1)
        attach(w, sig_tag(legacy(KEY, payload(v1.digest))), f"{tag}.sig")
        await w.sync_one(replace(rule(tags=["v1"]), trust=(POLICY,)))
        assert w.tags()["app"].keys() == {"v1", f"{tag}.sig"}
        assert w.left.store.referrers("app", v1.digest)
        assert w.source.count("referrers", v1.digest) == 1
        assert [w.source.count("resolve", tag + suffix) for suffix in (".sig", ".att", ".sbom")] == [1, 1, 1]


async def test_a_fallback_tag_that_was_read_to_check_trust_is_not_read_again_to_copy() -> None:
    async with world() as w:
        w.source.referrers_api = False
        v1 = w.put("app", "v1")
        signature = bundle_referrer(v1, bundle(KEY, v1.digest))
        attach(w, index([signature]), fallback_tag(v1.digest))
        await w.sync_one(trusting())
        assert w.left.store.referrers("app", v1.digest)
        assert w.source.count("read_manifest", fallback_tag(v1.digest)) == 1


async def test_a_notary_project_signature_travels_and_is_named_as_not_verified() -> None:
    async with world() as w:
        root = w.put("app", "v1")
        notation = referrer(root, NOTATION)
        attach(w, notation)
        result = await w.sync_one(trusting())
        assert "a Notary Project signature, which cannot be verified here" in (result.actions[0].reason or "")
        assert (await w.sync_one()).totals.tags.copied == 1
        assert notation.digest in w.left.store.repositories["app"].manifests
        sign(w, root)
        w.forget()
        assert (await w.sync_one(trusting())).totals.tags.copied == 1, "beside it a key's signature counts"


async def test_a_blob_that_is_larger_than_its_manifest_says_is_not_read_to_the_end() -> None:
    """100 MB behind a descriptor of a small bundle."""
    async with world() as w:
        root = w.put("app", "v1")
        signature = bundle_referrer(root, bundle(KEY, root.digest))
        attach(w, signature)
        (layer,) = [blob for blob in signature.manifest.blobs if blob.size and blob.size > 2]
        w.source.store.blobs[layer.digest] = Blob(bytes(100_000_000))
        result = await w.sync_one(trusting())
        assert w.tags() == {}
        (failure,) = result.failures
        assert "more than" in failure.cause
        assert result.totals.bytes.read < 2_000_000
