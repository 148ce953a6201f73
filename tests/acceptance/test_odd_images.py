"""Images that a destination cannot hold are held, with the reason and the remedy; bodies and mounts that go astray are not."""

from __future__ import annotations

import json

import msgspec
import pytest
from aiohttp.typedefs import Middleware

from replicator.demo.images import BuiltImage, image, index, layer
from replicator.demo.store import Blob
from replicator.engine.result import DestinationResult
from replicator.model.descriptor import Descriptor
from replicator.model.digest import Digest, digest_of
from replicator.model.manifest import parse_manifest
from replicator.model.mediatypes import DOCKER_MANIFEST, OCI_MANIFEST
from tests.acceptance.wired import Wired, wired
from tests.fakes import content, faults, habits
from tests.fakes.registry import FakeRegistry
from tests.fakes.watched import WatchedStore

FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"


def target(*quirks: Middleware, refuses_dangling: bool = False) -> FakeRegistry:
    return FakeRegistry(*quirks, store=WatchedStore(refuses_dangling=refuses_dangling))


def changed(built: BuiltImage, **changes: object) -> BuiltImage:
    """The image with members of its manifest replaced."""
    body = json.dumps({**json.loads(built.manifest.body), **changes}).encode()
    return BuiltImage(parse_manifest(body, OCI_MANIFEST), built.blobs)


def windows() -> BuiltImage:
    built = image("windows", [layer("app")])
    base = {"mediaType": FOREIGN, "digest": digest_of(b"base"), "size": 4, "urls": ["https://mcr.test/base"]}
    return changed(built, layers=[base, *json.loads(built.manifest.body)["layers"]])


async def test_image_of_foreign_layers_is_held_and_asked_for_once() -> None:
    async with wired(target=target(habits.no_foreign_layers("windows"))) as w:
        w.put("windows", "v1", windows())
        result = await w.sync_one()
        assert (result.outcome, result.totals.tags.held) == ("ok", 1), result.failures
        [held] = [action for action in result.actions if action.outcome == "held"]
        assert "urls.allow" in (held.reason or "")
        assert "push these layers" in (held.reason or "")
        assert w.target.count("PUT", "/windows/manifests/") == 1


async def test_image_of_foreign_layers_is_copied_where_they_are_allowed() -> None:
    async with wired(target=target()) as w:
        w.put("windows", "v1", windows())
        assert (await w.sync_one()).outcome == "ok"
        assert w.tags() == w.whole


def by_sha512(w: Wired, repository: str = "odd") -> None:
    """An image whose layer is named by sha512."""
    data = b"layer of another digest"
    digest = digest_of(data, "sha512")
    w.source.store.add_blob(repository, digest, Blob(data))
    built = image(repository)
    entry = {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": len(data)}
    w.put(repository, "v1", changed(built, layers=[entry]))


def root_by_sha512(w: Wired, repository: str = "odd") -> Digest:
    """An image that is itself named by sha512, with a layer of its own."""
    built = image(repository, [layer(f"layer of {repository}", 200_000)])
    wide = parse_manifest(built.manifest.body, OCI_MANIFEST, digest_of(built.manifest.body, "sha512"))
    w.put(repository, "v1", BuiltImage(wide, built.blobs))
    return wide.digest


def reason(result: DestinationResult) -> str:
    assert (result.outcome, result.totals.tags.held) == ("ok", 1), result.failures
    [held] = [action for action in result.actions if action.outcome == "held"]
    return held.reason or ""


async def test_image_by_a_digest_that_the_registry_does_not_know_is_held_before_it_is_sent() -> None:
    async with wired(target=target(habits.sha256_only())) as w:
        by_sha512(w)
        async with w.engine() as engine:
            await engine.plan([w.rule])
        assert w.target.count("PUT", "") + w.target.count("POST", "") == 0
        assert "takes sha256 digests only" in reason(await w.sync_one())
        assert "odd" not in w.tags()
        assert w.target.count("PUT", "/odd/") == 1  # two bytes, to find out


async def test_manifest_by_a_digest_that_the_registry_does_not_know_is_held_before_it_is_sent() -> None:
    async with wired(target=target(habits.sha256_only("/manifests/"))) as w:
        root_by_sha512(w)
        assert "takes sha256 digests of manifests only" in reason(await w.sync_one())
        assert w.target.count("POST", "/odd/blobs/") == 0
        assert w.target.count("PUT", "/odd/manifests/") == 1
        by_sha512(w, "other")
        assert (await w.sync_one()).totals.tags.copied == 1  # blobs of that digest are taken
        assert "other" in w.tags()


async def test_tag_of_such_a_manifest_is_put_beside_its_digest() -> None:
    async with wired(target=target(habits.tags_beside_digests())) as w:
        digest = root_by_sha512(w)
        assert (result := await w.sync_one()).outcome == "ok", result.failures
        assert w.target.store.repositories["odd"].tags == {"v1": digest}
        assert list(w.target.store.repositories["odd"].manifests) == [digest]  # what was tried with is gone


async def test_tag_that_would_lead_to_another_digest_is_not_put() -> None:
    async with wired(target=target()) as w:
        root_by_sha512(w)
        assert "sha256 digests of manifests with a tag only" in reason(await w.sync_one())
        w.target.requests.clear()
        assert "with a tag only" in reason(await w.sync_one())
        assert w.target.count("POST", "/blobs/") == 0  # what was sent to find out is not sent again
        assert not w.target.store.repositories["odd"].tags


async def test_image_by_a_digest_that_cannot_be_computed_is_held() -> None:
    async with wired(target=target()) as w:
        entry = {
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": f"sha384:{'0' * 96}",
            "size": 3,
        }
        built = image("odd")
        body = json.dumps({**json.loads(built.manifest.body), "layers": [entry]}).encode()
        manifest = msgspec.structs.replace(
            built.manifest, descriptor=Descriptor(OCI_MANIFEST, digest_of(body), len(body)), body=body
        )
        w.put("odd", "v1", BuiltImage(manifest, built.blobs))
        result = await w.sync_one()
        assert (result.outcome, result.totals.tags.held) == ("ok", 1), result.failures


@pytest.mark.parametrize(
    ("status", "message"), [(415, "manifest invalid"), (400, f"unsupported media type: {DOCKER_MANIFEST}")]
)
async def test_a_media_type_that_is_refused_is_held_and_the_next_image_is_not_sent(
    status: int, message: str
) -> None:
    async with wired(target=target(habits.takes_no_type(DOCKER_MANIFEST, status, message))) as w:
        w.put("docker", "v1", content.docker_image("one"))
        w.put("docker", "v2", content.docker_list(content.docker_image("two")))
        async with w.engine() as engine:
            [first] = await engine.sync([w.rule])
            w.put("docker", "v3", content.docker_image("three"))
            w.target.requests.clear()
            [second] = await engine.sync([w.rule])
        for result, held in ((first.destinations[0], 2), (second.destinations[0], 3)):
            assert (result.outcome, result.totals.tags.held) == ("ok", held), result.failures
            for action in (each for each in result.actions if each.outcome == "held"):
                assert f"does not take manifests of type {DOCKER_MANIFEST}" in (action.reason or "")
        assert w.target.count("PUT", "/docker/") + w.target.count("POST", "/docker/") == 0


async def test_a_manifest_that_is_refused_for_another_reason_is_a_failure() -> None:
    async with wired(target=target(habits.takes_no_type(DOCKER_MANIFEST, 400, "too many layers"))) as w:
        w.put("docker", "v1", content.docker_image("one"))
        result = await w.sync_one()
        assert result.totals.tags.failed == 1


async def test_schema_1_is_copied_as_it_is() -> None:
    async with wired(target=target(refuses_dangling=True)) as w:
        built = w.put("old", "v1", content.schema1("old"))
        assert (result := await w.sync_one()).outcome == "ok", result.failures
        assert w.tags() == w.whole
        assert w.target.store.manifest("old", "v1").body == built.manifest.body
        assert w.target.count("PUT", "/old/manifests/") == 2  # one to find out


@pytest.mark.parametrize(
    "refusal",
    [
        habits.no_schema1(),
        habits.no_schema1(415),
        habits.no_schema1(500, "UNKNOWN", "unknown error"),
        habits.no_schema1(405, "UNSUPPORTED"),
    ],
)
async def test_schema_1_is_held_before_it_is_sent_where_it_is_refused(refusal: Middleware) -> None:
    async with wired(target=target(refusal)) as w:
        w.put("old", "v1", content.schema1("old"))
        w.put("old", "v2", content.schema1("older"))
        result = await w.sync_one()
        assert (result.outcome, result.totals.tags.held) == ("ok", 2), result.failures
        for held in (action for action in result.actions if action.outcome == "held"):
            assert "compatibility.schema1.enabled" in (held.reason or "")
        assert w.target.count("POST", "/old/blobs/") == 0
        assert w.target.count("PUT", "/old/manifests/") == 1
        assert "old" not in w.tags()


async def test_schema_1_whose_signatures_are_wrong_costs_no_other_image() -> None:
    async with wired(target=target()) as w:
        w.put("old", "v1", content.schema1("old"))
        w.put("older", "v1", content.schema1("older"))
        w.target.fault("PUT", "/old/manifests/", faults.refuse(400, "MANIFEST_UNVERIFIED"), times=None)
        result = await w.sync_one()
        assert result.totals.tags.failed == 1
        assert "older" in w.tags()


async def test_unsigned_schema_1_is_copied_where_it_is_taken() -> None:
    async with wired(target=target()) as w:
        w.put("old", "v1", content.schema1("old", signed=False))
        assert (await w.sync_one()).outcome == "ok"
        assert w.tags() == w.whole


async def test_index_of_more_than_a_thousand_children_is_copied() -> None:
    async with wired(target=target()) as w:
        shared = layer("shared")
        children = [
            changed(image("one of many", [shared]), annotations={"number": str(number)})
            for number in range(1_010)
        ]
        w.put("many", "v1", index(children))
        result = await w.sync_one()
        assert result.outcome == "ok", result.failures
        assert w.tags() == w.whole
        assert len(w.target.store.repositories["many"].manifests) == 1_011


async def test_blob_whose_mount_was_claimed_and_is_not_there_is_sent() -> None:
    shared = layer("shared", 200_000)
    async with wired(target=target(habits.lying_mounts(), refuses_dangling=True)) as w:
        w.put("one", "v1", image("one", [shared]))
        await w.sync_one()
        w.put("two", "v1", image("two", [shared]))
        result = await w.sync_one()
        assert result.outcome == "ok", result.failures
        assert w.tags() == w.whole


async def test_body_that_is_cut_off_for_its_size_goes_up_in_chunks() -> None:
    async with wired(target=target(habits.cuts_large_bodies(100_000))) as w:
        result = await w.sync_one()
        assert result.outcome == "ok", result.failures
        assert w.tags() == w.whole


@pytest.mark.parametrize("side", ["source", "target"])
async def test_connections_that_die_at_every_third_request_lose_no_tag(side: str) -> None:
    fake = target(habits.drops_every(3))
    async with wired(source=fake) if side == "source" else wired(target=fake) as w:
        for number in range(8):
            w.put("many", f"v{number}")
        result = await w.sync_one()
        assert result.outcome == "ok", result.failures
        assert w.tags() == w.whole


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("side", ["source", "target"])
async def test_rate_limit_without_a_word_loses_no_tag(side: str, status: int) -> None:
    fake = target(habits.rate_limit(40, status=status))
    async with wired(source=fake) if side == "source" else wired(target=fake) as w:
        for number in range(12):
            w.put("many", f"v{number}")
        result = await w.sync_one()
        assert result.outcome == "ok", result.failures
        assert w.tags() == w.whole
