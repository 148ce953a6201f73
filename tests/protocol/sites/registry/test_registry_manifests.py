"""Manifests, tags and referrers of a registry's repository."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp import web
from aiohttp.typedefs import Middleware

from replicator.demo.images import BuiltImage, image, index, layer, load
from replicator.errors import (
    Advice,
    Corrupt,
    Denied,
    Immutable,
    MissingReference,
    NotFound,
    Rejected,
    SiteError,
    Throttled,
    Unavailable,
    Unsupported,
)
from replicator.model.digest import Digest, digest_of
from replicator.model.manifest import MAX_MANIFEST_BYTES, Kind, parse_manifest
from replicator.model.mediatypes import (
    DOCKER_SCHEMA1_SIGNED,
    MANIFEST_ACCEPT,
    OCI_EMPTY,
    OCI_INDEX,
    OCI_MANIFEST,
)
from replicator.sites.registry.repository import RegistryRepository
from tests.fakes import content, faults, habits, places
from tests.fakes.clients import registry_site
from tests.fakes.registry import Action, Exchange, FakeRegistry
from tests.fakes.vendors import quay

MANIFESTS = "/v2/app/manifests/"


@pytest.fixture
async def fake() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as fake:
        yield fake


@pytest.fixture
async def repository(fake: FakeRegistry) -> AsyncIterator[RegistryRepository]:
    async with registry_site(fake.url) as site:
        yield site.repository("app")


@pytest.fixture
def built(fake: FakeRegistry) -> BuiltImage:
    built = image("a", [layer("a", 1000)])
    load(fake.store, "app", "v1", built)
    return built


# --- resolve ---


async def test_a_tag_is_resolved_by_one_head(
    fake: FakeRegistry, repository: RegistryRepository, built: BuiltImage
) -> None:
    found = await repository.resolve("v1")
    assert (found.digest, found.size, found.media_type) == (
        built.digest,
        len(built.manifest.body),
        OCI_MANIFEST,
    )
    assert [entry.method for entry in fake.find(target=MANIFESTS)] == ["HEAD"]
    assert fake.find(target=MANIFESTS)[0].headers["Accept"] == MANIFEST_ACCEPT


async def test_a_tag_that_still_names_what_it_did_is_confirmed_by_304(
    fake: FakeRegistry, repository: RegistryRepository, built: BuiltImage
) -> None:
    assert await repository.changed("v1", built.digest) is None
    assert [(entry.method, entry.status) for entry in fake.find(target=MANIFESTS)] == [("HEAD", 304)]


async def test_a_tag_that_moved_is_described_in_the_same_request(
    fake: FakeRegistry, repository: RegistryRepository, built: BuiltImage
) -> None:
    load(fake.store, "app", "v1", moved := image("b"))
    found = await repository.changed("v1", built.digest)
    assert found is not None
    assert found.digest == moved.digest
    assert fake.count(target=MANIFESTS) == 1


async def test_a_missing_tag_is_not_found(repository: RegistryRepository, built: BuiltImage) -> None:
    with pytest.raises(NotFound) as raised:
        await repository.resolve("v2")
    assert (raised.value.site, raised.value.repository) == ("there", "app")


@pytest.mark.parametrize(
    "fault",
    [
        faults.header("Docker-Content-Digest", None),
        faults.header("Docker-Content-Digest", "sha1:abc"),
        faults.header("Docker-Content-Digest", "nonsense"),
        faults.answer(405),
        faults.answer(403),
        faults.answer(501),
    ],
)
async def test_where_a_head_does_not_tell_the_content_is_hashed(
    fake: FakeRegistry, repository: RegistryRepository, built: BuiltImage, fault: Action
) -> None:
    fake.fault("HEAD", MANIFESTS, fault)
    found = await repository.resolve("v1")
    assert (found.digest, found.size) == (built.digest, len(built.manifest.body))
    assert [entry.method for entry in fake.find(target=MANIFESTS)] == ["HEAD", "GET"]


async def test_a_tag_is_not_taken_from_another_host() -> None:
    async with FakeRegistry(places.manifests_in_storage()) as fake, registry_site(fake.url) as site:
        built = image("a", [layer("a", 10)])
        load(fake.store, "app", "v1", built)
        with pytest.raises(Rejected, match='redirects = "any" allows it'):
            await site.repository("app").resolve("v1")
        assert (await site.repository("app").read_manifest(built.digest)).digest == built.digest


async def test_a_head_redirected_to_a_url_signed_for_get_is_followed_by_a_get() -> None:
    async with (
        FakeRegistry(places.manifests_in_storage()) as fake,
        registry_site(fake.url, redirects="any") as site,
    ):
        built = image("a", [layer("a", 10)])
        load(fake.store, "app", "v1", built)
        assert (await site.repository("app").resolve("v1")).digest == built.digest


async def test_who_may_neither_head_nor_get_is_denied(
    fake: FakeRegistry, repository: RegistryRepository, built: BuiltImage
) -> None:
    fake.fault("HEAD|GET", MANIFESTS, faults.refuse(403, "DENIED"), times=None)
    with pytest.raises(Denied):
        await repository.resolve("v1")


async def test_a_length_of_0_is_the_answers_own_and_leaves_the_size_unknown(
    fake: FakeRegistry, repository: RegistryRepository, built: BuiltImage
) -> None:
    fake.fault("HEAD", MANIFESTS, faults.header("Content-Length", "0"))
    assert (await repository.resolve("v1")).size is None


async def test_a_digest_that_resolves_to_another_is_corrupt(
    fake: FakeRegistry, repository: RegistryRepository, built: BuiltImage
) -> None:
    fake.fault("HEAD", MANIFESTS, faults.header("Docker-Content-Digest", digest_of(b"other")))
    with pytest.raises(Corrupt):
        await repository.resolve(built.digest)


async def test_a_digest_answered_in_another_algorithm_is_checked_by_content(
    fake: FakeRegistry, repository: RegistryRepository, built: BuiltImage
) -> None:
    told = digest_of(built.manifest.body, "sha512")
    fake.fault("HEAD", MANIFESTS, faults.header("Docker-Content-Digest", told))
    assert (await repository.resolve(built.digest)).digest == built.digest


# --- read ---


@pytest.mark.parametrize("by", ["tag", "digest"])
async def test_a_manifest_is_read_as_the_bytes_it_is(
    repository: RegistryRepository, built: BuiltImage, by: str
) -> None:
    manifest = await repository.read_manifest("v1" if by == "tag" else built.digest)
    assert manifest == built.manifest


@pytest.mark.parametrize("by", ["tag", "digest"])
async def test_bytes_that_are_not_the_digests_are_corrupt(
    fake: FakeRegistry, repository: RegistryRepository, built: BuiltImage, by: str
) -> None:
    fake.fault("GET", MANIFESTS, faults.corrupt(at=3))
    with pytest.raises(Corrupt):
        await repository.read_manifest("v1" if by == "tag" else built.digest)


async def test_a_lying_digest_header_is_found_out(
    fake: FakeRegistry, repository: RegistryRepository, built: BuiltImage
) -> None:
    fake.fault("GET", MANIFESTS, faults.header("Docker-Content-Digest", digest_of(b"other")))
    with pytest.raises(Corrupt):
        await repository.read_manifest("v1")


async def test_a_manifest_without_a_digest_header_is_hashed(
    fake: FakeRegistry, repository: RegistryRepository, built: BuiltImage
) -> None:
    fake.fault("GET", MANIFESTS, faults.header("Docker-Content-Digest", None))
    assert (await repository.read_manifest("v1")).digest == built.digest


async def test_a_manifest_asked_for_by_sha512_is_verified_by_sha512(
    fake: FakeRegistry, repository: RegistryRepository, built: BuiltImage
) -> None:
    digest = digest_of(built.manifest.body, "sha512")

    async def serve(_: Exchange) -> web.StreamResponse:
        return web.Response(body=built.manifest.body, content_type=OCI_MANIFEST)

    fake.fault("GET", MANIFESTS, serve, times=None)
    assert (await repository.read_manifest(digest)).digest == digest
    with pytest.raises(Corrupt):
        await repository.read_manifest(digest_of(b"other", "sha512"))


@pytest.mark.parametrize("body", ["", "{", "[]", '{"layers": 3}', '{"config": {"digest": "x"}}'])
async def test_what_is_no_manifest_is_corrupt(
    fake: FakeRegistry, repository: RegistryRepository, body: str
) -> None:
    headers = {"Content-Type": OCI_MANIFEST}

    async def serve(_: Exchange) -> web.StreamResponse:
        return web.Response(body=body.encode(), headers=headers)

    fake.fault("GET", MANIFESTS, serve)
    with pytest.raises(Corrupt):
        await repository.read_manifest("v1")


PAGES = {
    "by its type": ("text/html; charset=utf-8", "<p>hello"),
    "by its text": (OCI_MANIFEST, "<!DOCTYPE html><html><title>Sign&nbsp;in</title>"),
}


@pytest.mark.parametrize(("media_type", "body"), PAGES.values(), ids=PAGES)
async def test_a_web_page_instead_of_a_manifest_is_called_one(
    fake: FakeRegistry, repository: RegistryRepository, media_type: str, body: str
) -> None:
    async def serve(_: Exchange) -> web.StreamResponse:
        return web.Response(body=body.encode(), headers={"Content-Type": media_type})

    fake.fault("GET", MANIFESTS, serve)
    with pytest.raises(Unavailable, match=r"received a web page.*proxy or a login page") as raised:
        await repository.read_manifest("v1")
    assert raised.value.advice is Advice.LATER


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_manifest_that_is_too_large_is_not_read(
    fake: FakeRegistry, repository: RegistryRepository, *, chunked: bool
) -> None:
    async def serve(exchange: Exchange) -> web.StreamResponse:
        body = b" " * (MAX_MANIFEST_BYTES + 1)
        if not chunked:
            return web.Response(body=body, content_type=OCI_MANIFEST)
        response = web.StreamResponse(headers={"Content-Type": OCI_MANIFEST})
        response.enable_chunked_encoding()
        await response.prepare(exchange.request)
        await response.write(body)
        await response.write_eof()
        return response

    fake.fault("GET", MANIFESTS, serve)
    with pytest.raises(Corrupt, match=str(MAX_MANIFEST_BYTES)):
        await repository.read_manifest("v1")


@pytest.mark.parametrize("tells", [True, False])
async def test_schema_1_is_verified_by_what_its_signatures_sign(
    fake: FakeRegistry, repository: RegistryRepository, *, tells: bool
) -> None:
    """Distribution signs anew at each request, so that the bytes are always others."""
    built = content.schema1("old")
    other = content.schema1("old")
    assert built.manifest.body != other.manifest.body

    async def serve(_: Exchange) -> web.StreamResponse:
        headers = {"Docker-Content-Digest": built.digest} if tells else {}
        return web.Response(
            body=other.manifest.body, headers={"Content-Type": DOCKER_SCHEMA1_SIGNED, **headers}
        )

    fake.fault("GET", MANIFESTS, serve, times=2)
    for reference in ("v1", built.digest):
        manifest = await repository.read_manifest(reference)
        assert (manifest.digest, manifest.kind) == (built.digest, Kind.SCHEMA1)
        assert {blob.digest for blob in manifest.blobs} == set(built.blobs)


@pytest.mark.parametrize("added", ['"layers": [], "config": null', '"fsLayers": []', '"schemaVersion": 2'])
async def test_what_is_added_to_what_is_signed_is_not_believed(
    fake: FakeRegistry, repository: RegistryRepository, added: str
) -> None:
    """The digest covers the payload alone: what else is in the bytes could be anybody's."""
    honest = content.schema1("honest")
    body = honest.manifest.body
    cut = body.rindex(b"\n}")
    changed = body[:cut] + b", " + added.encode() + body[cut:]

    async def serve(_: Exchange) -> web.StreamResponse:
        told = {"Content-Type": DOCKER_SCHEMA1_SIGNED, "Docker-Content-Digest": honest.digest}
        return web.Response(body=changed, headers=told)

    fake.fault("GET", MANIFESTS, serve)
    try:
        manifest = await repository.read_manifest("v1")
    except Corrupt:
        assert "layers" not in added.split('"')  # named twice, or no schema 1 at all
    else:
        assert {blob.digest for blob in manifest.blobs} == set(honest.blobs)


# --- write ---


async def test_a_manifest_is_put_byte_for_byte_with_its_media_type(
    fake: FakeRegistry, repository: RegistryRepository, built: BuiltImage
) -> None:
    odd = parse_manifest(built.manifest.body + b"\n ", OCI_MANIFEST)
    assert await repository.write_manifest(odd, "v2") == odd.digest
    assert await repository.write_manifest(odd) == odd.digest
    assert (await repository.read_manifest("v2")).body == odd.body
    puts = fake.find("PUT", MANIFESTS)
    assert [entry.path.rpartition("/")[2] for entry in puts] == ["v2", odd.digest]
    assert {entry.headers["Content-Type"] for entry in puts} == {OCI_MANIFEST}


@pytest.mark.parametrize("status", [200, 201, 202, 204])
async def test_each_kind_of_success_is_taken_and_an_untold_digest_is_none(
    fake: FakeRegistry, repository: RegistryRepository, built: BuiltImage, status: int
) -> None:
    fake.fault("PUT", MANIFESTS, faults.answer(status))
    assert await repository.write_manifest(built.manifest, "v1") is None


async def test_a_manifest_whose_parts_are_missing_names_them(fake: FakeRegistry) -> None:
    built = image("b", [layer("b", 10)])
    async with registry_site(fake.url) as site:
        with pytest.raises(MissingReference) as raised:
            await site.repository("app").write_manifest(built.manifest, "v1")
        assert set(raised.value.digests) & {blob.digest for blob in built.manifest.blobs}


@pytest.mark.parametrize(
    ("status", "code"), [(400, "TAG_INVALID"), (412, "PRECONDITION"), (409, "TAG_IMMUTABLE")]
)
async def test_an_immutable_tag_is_said_to_be_one(status: int, code: str) -> None:
    async with FakeRegistry(habits.immutable_tags(status, code)) as fake, registry_site(fake.url) as site:
        load(fake.store, "app", "v1", image("a", [layer("a", 10)]))
        other = image("b", [layer("a", 10)])
        load(fake.store, "app", None, other)
        repository = site.repository("app")
        assert repository.refuses_tag("v1") is None
        with pytest.raises(Immutable, match="the tag v1 is immutable there and names sha256:"):
            await repository.write_manifest(other.manifest, "v1")
        assert "immutable" in (site.repository("app").refuses_tag("v1") or "")
        assert repository.refuses_tag("v2") is None


@pytest.mark.parametrize(
    ("status", "code"), [(400, "TAG_INVALID"), (412, "PRECONDITION"), (409, "TAG_IMMUTABLE")]
)
async def test_an_immutable_tag_that_names_the_same_is_in_step(status: int, code: str) -> None:
    async with FakeRegistry(habits.immutable_tags(status, code)) as fake, registry_site(fake.url) as site:
        built = image("a", [layer("a", 10)])
        load(fake.store, "app", "v1", built)
        repository = site.repository("app")
        assert await repository.write_manifest(built.manifest, "v1") == built.digest
        assert repository.refuses_tag("v1") is None


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("dockerhub", 403, "DENIED"),
        ("gitlab", 401, "PROTECTED_TAG"),
        ("gitlab", 401, "IMMUTABLE_TAG"),
        ("artifactory", 403, "FORBIDDEN"),
        ("acr", 405, "DENIED"),
        ("acr", 409, "DENIED"),
    ],
)
async def test_a_refusal_in_other_words_is_about_the_tag_if_that_is_there(
    kind: str, status: int, code: str
) -> None:
    async with FakeRegistry() as fake, registry_site(fake.url, kind=kind) as site:
        built = image("a", [layer("a", 10)])
        load(fake.store, "app", "v1", image("b", [layer("a", 10)]))
        load(fake.store, "app", None, built)
        fake.fault("PUT", MANIFESTS, faults.refuse(status, code), times=None)
        with pytest.raises(Immutable):
            await site.repository("app").write_manifest(built.manifest, "v1")
        with pytest.raises(SiteError) as raised:
            await site.repository("app").write_manifest(built.manifest, "v2")
        assert not isinstance(raised.value, Immutable)


@pytest.mark.parametrize(
    ("kind", "status", "code", "detail"),
    [
        ("dockerhub", 403, "DENIED", None),
        ("gitlab", 401, "PROTECTED_TAG", 'tag "v1" is protected'),
        ("gitlab", 401, "IMMUTABLE_TAG", 'tag "v1" is immutable'),
        ("artifactory", 403, "FORBIDDEN", None),
        ("artifactory", 400, "MANIFEST_INVALID", {"description": "HTTP 403 Forbidden"}),
        ("google", 400, "MANIFEST_INVALID", "the repository has enabled tag immutability"),
        ("", 403, "FORBIDDEN", "this repository is immutable"),
        ("alibaba", 403, "UNKNOWN", "The requested tag already exists and cannot be overwritten."),
        ("acr", 405, "UNSUPPORTED", None),
        ("acr", 409, "CONFLICT", None),
        ("nexus", 400, "UNKNOWN", "Repository does not allow updating assets"),
    ],
)
async def test_a_refusal_in_other_words_to_write_the_same_again_is_in_step(
    kind: str, status: int, code: str, detail: object
) -> None:
    async with FakeRegistry() as fake, registry_site(fake.url, kind=kind) as site:
        built = image("a", [layer("a", 10)])
        load(fake.store, "app", "v1", built)
        fake.fault("PUT", MANIFESTS, faults.refuse(status, code, detail), times=None)
        repository = site.repository("app")
        assert await repository.write_manifest(built.manifest, "v1") == built.digest
        assert fake.count("PUT", MANIFESTS) == 1
        assert repository.refuses_tag("v1") is None


@pytest.mark.parametrize(
    ("status", "code"), [(400, "TAG_INVALID"), (412, "PROJECTPOLICYVIOLATION"), (413, "SIZE")]
)
async def test_other_refusals_are_not_called_immutable(
    fake: FakeRegistry, repository: RegistryRepository, built: BuiltImage, status: int, code: str
) -> None:
    fake.fault("PUT", MANIFESTS, faults.refuse(status, code))
    with pytest.raises(Rejected) as raised:
        await repository.write_manifest(built.manifest, "v1")
    assert "immutable" not in str(raised.value)


# --- delete ---


async def test_a_tag_is_deleted_by_its_name_and_leaves_the_others(
    fake: FakeRegistry, built: BuiltImage
) -> None:
    load(fake.store, "app", "v2", built)
    async with registry_site(fake.url, {"delete_tag": True}) as site:
        await site.repository("app").delete_tag("v1")
        assert set(fake.store.content("app").tags) == {"v2"}
        with pytest.raises(NotFound):
            await site.repository("app").delete_tag("v1")


async def test_where_single_tags_cannot_be_deleted_nothing_is_asked(
    fake: FakeRegistry, repository: RegistryRepository, built: BuiltImage
) -> None:
    with pytest.raises(Unsupported):
        await repository.delete_tag("v1")
    assert fake.count() == 0


@pytest.mark.parametrize("quirk", [habits.delete_by_digest_only, habits.no_delete])
async def test_a_refused_delete_of_a_tag_is_unsupported(quirk: Callable[[], Middleware]) -> None:
    async with FakeRegistry(quirk()) as fake, registry_site(fake.url, {"delete_tag": True}) as site:
        load(fake.store, "app", "v1", image("a", [layer("a", 10)]))
        with pytest.raises(Unsupported):
            await site.repository("app").delete_tag("v1")
        assert set(fake.store.content("app").tags) == {"v1"}


# --- referrers ---


def load_referrers(fake: FakeRegistry, subject: BuiltImage, count: int) -> set[Digest]:
    digests = set()
    fake.store.put_blob("app", b"{}")
    for number in range(count):
        body = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": "application/x-test",
            "config": {
                "mediaType": "application/vnd.oci.empty.v1+json",
                "digest": digest_of(b"{}"),
                "size": 2,
            },
            "layers": [],
            "subject": {
                "mediaType": OCI_MANIFEST,
                "digest": subject.digest,
                "size": len(subject.manifest.body),
            },
            "annotations": {"number": str(number)},
        }
        manifest = parse_manifest(json.dumps(body).encode(), OCI_MANIFEST)
        fake.store.put_manifest("app", manifest)
        digests.add(manifest.digest)
    return digests


async def test_referrers_are_listed_over_pages() -> None:
    async with FakeRegistry(habits.paged_referrers(2)) as fake, registry_site(fake.url) as site:
        built = image("a", [layer("a", 10)])
        load(fake.store, "app", "v1", built)
        expected = load_referrers(fake, built, 5)
        found = await site.repository("app").referrers(built.digest)
        assert {descriptor.digest for descriptor in found} == expected
        assert {descriptor.artifact_type for descriptor in found} == {"application/x-test"}
        assert fake.count("GET", "/referrers/") == 3


async def test_the_type_of_an_empty_config_is_not_taken_for_that_of_a_referrer(
    fake: FakeRegistry, repository: RegistryRepository, built: BuiltImage
) -> None:
    """Zot 1.4 lists the config's type where the manifest tells its own."""
    entry = {"mediaType": OCI_MANIFEST, "digest": digest_of(b"signature"), "size": 9}
    entries = [entry | {"artifactType": OCI_EMPTY}]
    body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}

    async def serve(_: Exchange) -> web.StreamResponse:
        return web.json_response(body, content_type=OCI_INDEX)

    fake.fault("GET", "/referrers/", serve)
    (listed,) = await repository.referrers(built.digest)
    assert listed.artifact_type is None


async def test_no_referrers_are_none(repository: RegistryRepository, built: BuiltImage) -> None:
    assert await repository.referrers(built.digest) == ()


@pytest.mark.parametrize(
    "fault",
    [
        faults.answer(404, "404 page not found"),
        faults.answer(400),
        faults.answer(405),
        faults.answer(302, headers={"Location": "ftp://x"}),
        faults.answer(200, "<html>hello</html>", html=True),
        faults.answer(200, '{"hello": "world"}'),
        faults.answer(200, '{"manifests": 3}'),
    ],
)
async def test_whatever_a_registry_without_the_api_answers_is_unsupported(
    fake: FakeRegistry, repository: RegistryRepository, built: BuiltImage, fault: Action
) -> None:
    fake.fault("GET", "/referrers/", fault)
    with pytest.raises(Unsupported):
        await repository.referrers(built.digest)


async def test_quay_says_invalid_for_a_subject_that_is_not_there() -> None:
    async with FakeRegistry(quay.habits()) as fake, registry_site(fake.url) as site:
        with pytest.raises(NotFound):
            await site.repository("app").referrers(digest_of(b"not there"))


@pytest.mark.parametrize("code", ["NAME_UNKNOWN", "MANIFEST_INVALID"])
async def test_an_unknown_subject_or_repository_says_nothing_about_the_api(
    fake: FakeRegistry, repository: RegistryRepository, built: BuiltImage, code: str
) -> None:
    fake.fault("GET", "/referrers/", faults.answer(404, json.dumps({"errors": [{"code": code}]})))
    with pytest.raises(NotFound):
        await repository.referrers(built.digest)


async def test_a_404_of_zot_is_a_broken_manifest_and_not_a_missing_api(
    fake: FakeRegistry, built: BuiltImage
) -> None:
    fake.fault("GET", "/referrers/", faults.answer(404, '{"errors": [{"code": "MANIFEST_UNKNOWN"}]}'))
    async with registry_site(fake.url, kind="zot") as site:
        with pytest.raises(Corrupt, match="a manifest is broken"):
            await site.repository("app").referrers(built.digest)


async def test_a_listing_of_referrers_has_a_limit_over_all_its_pages(
    fake: FakeRegistry, repository: RegistryRepository, built: BuiltImage
) -> None:
    pages = 0

    async def serve(exchange: Exchange) -> web.StreamResponse:
        nonlocal pages
        pages += 1
        entry = {"mediaType": OCI_MANIFEST, "digest": digest_of(str(pages).encode()), "size": 2}
        body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry], "padding": "x" * 3_000_000}
        link = f'<{exchange.request.path}?page={pages}>; rel="next"'
        return web.Response(text=json.dumps(body), headers={"Content-Type": OCI_INDEX, "Link": link})

    fake.fault("GET", "/referrers/", serve, times=None)
    with pytest.raises(Corrupt, match="more than 10485760 bytes"):
        await repository.referrers(built.digest)
    assert pages == 4


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_listing_of_referrers_that_fails_is_an_error_and_not_none(
    fake: FakeRegistry, repository: RegistryRepository, built: BuiltImage, status: int
) -> None:
    fake.fault("GET", "/referrers/", faults.answer(status), times=None)
    with pytest.raises((Throttled, Unavailable)):
        await repository.referrers(built.digest)


async def test_a_page_of_referrers_that_links_to_itself_is_asked_for_once(
    fake: FakeRegistry, repository: RegistryRepository, built: BuiltImage
) -> None:
    entry = {"mediaType": OCI_MANIFEST, "digest": digest_of(b"one"), "size": 2}
    body = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]})

    async def serve(exchange: Exchange) -> web.StreamResponse:
        link = f'<{exchange.request.path}>; rel="next"'
        return web.Response(text=body, headers={"Content-Type": OCI_INDEX, "Link": link})

    fake.fault("GET", "/referrers/", serve, times=None)
    with pytest.raises(Corrupt, match="repeats"):
        await repository.referrers(built.digest)
    assert fake.count("GET", "/referrers/") == 1


async def test_referrers_that_repeat_are_an_error(
    fake: FakeRegistry, repository: RegistryRepository, built: BuiltImage
) -> None:
    body = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []})

    async def serve(exchange: Exchange) -> web.StreamResponse:
        link = f'<{exchange.request.path}?page={len(exchange.fake.requests)}>; rel="next"'
        return web.Response(text=body, headers={"Content-Type": OCI_INDEX, "Link": link})

    fake.fault("GET", "/referrers/", serve, times=None)
    with pytest.raises(Corrupt, match="repeats"):
        await repository.referrers(built.digest)


async def test_referrers_on_another_host_are_asked_of_the_registry_itself(
    fake: FakeRegistry, repository: RegistryRepository, built: BuiltImage
) -> None:
    body = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []})
    link = {"Link": '<http://example.invalid/x?start=1>; rel="next"', "Content-Type": OCI_INDEX}

    async def serve(_: Exchange) -> web.StreamResponse:
        return web.Response(text=body, headers=link)

    fake.fault("GET", "/referrers/", serve)
    with pytest.raises(SiteError, match="repeats"):
        await repository.referrers(built.digest)


async def test_an_index_keeps_its_children(fake: FakeRegistry, repository: RegistryRepository) -> None:
    built = index([image("a", [layer("a", 10)]), image("b", [layer("b", 10)])])
    load(fake.store, "app", "v1", built)
    manifest = await repository.read_manifest("v1")
    assert manifest.kind is Kind.INDEX
    assert len(manifest.children) == 2
