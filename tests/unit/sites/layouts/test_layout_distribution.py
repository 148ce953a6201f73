"""distribution's storage: what is written when, what a listing costs, and what is refused."""

from __future__ import annotations

import re

import pytest

from replicator.demo.images import ARM64, BuiltImage, image, index
from replicator.errors import Corrupt, MissingReference, NotFound, Rejected, Unavailable, Unsupported
from replicator.events import Events
from replicator.model.descriptor import Descriptor
from replicator.model.digest import digest_of
from replicator.model.manifest import parse_manifest
from replicator.model.mediatypes import DOCKER_MANIFEST
from replicator.ports import CopiesFromSibling, Listed, ListsDigests
from replicator.sites.layouts.distribution.paths import ROOT, RepositoryPaths, blob_data
from replicator.sites.layouts.distribution.repository import DistributionRepository
from replicator.sites.layouts.distribution.site import DistributionSite
from tests.fakes import content
from tests.fakes.layouts import Warnings, collect, digests, names, put_image
from tests.fakes.memory import MemorySite
from tests.fakes.objects import Killed, MemoryStore
from tests.fakes.source import BytesSource

APP = RepositoryPaths("team/app")
IMAGE = image("a")
INDEX = index([IMAGE, image("b", platform=ARM64)])


def repository(store: MemoryStore, name: str = "team/app") -> DistributionRepository:
    return DistributionSite(store, events=Events()).repository(name)


def served(store: MemoryStore, tag: str) -> bool:
    """Whether a registry on this storage would serve a tag to its last blob, by its own way through the links."""
    objects = store.objects
    link = objects.get(APP.current(tag))
    if link is None:
        return False
    waiting = [link.decode()]
    while waiting:
        digest = digest_of(objects[blob_data(waiting[0])])  # type: ignore[arg-type]
        assert digest == waiting.pop(0)
        assert objects[APP.revision(digest)] == digest.encode()
        manifest = parse_manifest(objects[blob_data(digest)], "")
        for blob in manifest.blobs:
            assert objects[APP.layer(blob.digest)] == blob.digest.encode()
            assert digest_of(objects[blob_data(blob.digest)]) == blob.digest
        waiting += [child.digest for child in manifest.children]
    return True


async def test_links_hold_exactly_the_digest() -> None:
    store = MemoryStore()
    await put_image(repository(store), IMAGE, "v1")
    links = {key: data for key, data in store.objects.items() if key.endswith("/link")}
    folder = f"{ROOT}/repositories/team/app"
    name = IMAGE.digest.partition(":")[2]
    assert links[f"{folder}/_manifests/tags/v1/current/link"] == IMAGE.digest.encode()
    assert links[f"{folder}/_manifests/tags/v1/index/sha256/{name}/link"] == IMAGE.digest.encode()
    assert links[f"{folder}/_manifests/revisions/sha256/{name}/link"] == IMAGE.digest.encode()
    for blob in IMAGE.blobs:
        assert links[f"{folder}/_layers/sha256/{blob[7:]}/link"] == blob.encode()
        assert store.objects[f"{ROOT}/blobs/sha256/{blob[7:9]}/{blob[7:]}/data"] == IMAGE.blobs[blob]


async def test_killed_after_any_change_no_tag_is_broken_and_the_next_run_completes() -> None:
    whole = MemoryStore()
    await put_image(repository(whole), IMAGE, "v1")
    await put_image(repository(whole), INDEX, "v1")
    for lives in range(len(whole.objects) + 10):
        store = MemoryStore()
        await put_image(repository(store), IMAGE, "v1")
        store.lives = lives
        try:
            await put_image(repository(store), INDEX, "v1")
        except Killed:
            assert served(store, "v1")
        store.lives = None
        await put_image(repository(store), INDEX, "v1")
        assert served(store, "v1")
        assert store.objects == whole.objects


async def test_blob_that_the_site_has_is_only_linked() -> None:
    store = MemoryStore()
    await repository(store, "first").write_blob(BytesSource(b"data"))
    source = BytesSource(b"data")
    assert await repository(store, "second").write_blob(source) == "mounted"
    assert source.opened == []
    assert await repository(store, "second").has_blob(digest_of(b"data"))


async def test_blob_swept_away_behind_its_link_is_not_there() -> None:
    store = MemoryStore()
    await repository(store).write_blob(BytesSource(b"data"))
    del store.objects[blob_data(digest_of(b"data"))]
    assert not await repository(store).has_blob(digest_of(b"data"))
    assert await repository(store).write_blob(BytesSource(b"data")) == "copied"
    assert await repository(store).has_blob(digest_of(b"data"))


@pytest.mark.parametrize("swept", ["blob", "child's blob", "child", "root"])
async def test_what_a_garbage_collection_took_while_we_wrote_is_noticed(swept: str) -> None:
    store = MemoryStore()
    gone = {
        "blob": IMAGE.manifest.blobs[0].digest,
        "child's blob": IMAGE.manifest.blobs[1].digest,
        "child": IMAGE.digest,
        "root": INDEX.digest if swept == "root" else IMAGE.digest,
    }[swept]
    written = IMAGE if swept == "blob" else INDEX

    def sweep(key: str) -> None:
        if key == APP.current("v1"):
            del store.objects[blob_data(gone)]

    store.before_put = sweep
    with pytest.raises(MissingReference) as caught:
        await put_image(repository(store), written, "v1")
    assert gone in caught.value.digests
    store.before_put = lambda _: None
    await put_image(repository(store), written, "v1")
    assert served(store, "v1")


# --- listings ---


async def test_unchanged_tags_cost_listing_requests_only() -> None:
    store = MemoryStore()
    await put_image(repository(store), IMAGE, "v0")
    for number in range(2_000):
        store.objects[APP.current(f"v{number}")] = IMAGE.digest.encode()
        store.objects[APP.history(f"v{number}", IMAGE.digest)] = IMAGE.digest.encode()
    first = {one.tag: one async for page in repository(store).listed({}) for one in page}
    assert len(first) == 2_000
    store.calls.clear()
    second = {one.tag: one async for page in repository(store).listed(first) for one in page}
    assert second == first
    assert set(store.calls) == {"list"}
    assert store.calls["list"] <= 5


async def test_only_the_tag_that_moved_is_read() -> None:
    store = MemoryStore()
    for tag in ("v1", "v2", "v3"):
        await put_image(repository(store), IMAGE, tag)
    known = {one.tag: one async for page in repository(store).listed({}) for one in page}
    await put_image(repository(store), INDEX, "v2")
    store.calls.clear()
    found = {one.tag: one async for page in repository(store).listed(known) for one in page}
    assert found["v2"].digest == INDEX.digest
    assert found["v2"].version != known["v2"].version
    assert store.calls["get"] == 1


@pytest.mark.parametrize(
    ("link", "says"),
    [(f"{IMAGE.digest}\n", "newline"), ("garbage", "garbage"), ("", "''"), ("sha256:00", "sha256:00")],
)
async def test_broken_link_hides_no_other_tag(link: str, says: str) -> None:
    store = MemoryStore()
    for tag in ("v1", "v2", "v3"):
        await put_image(repository(store), IMAGE, tag)
    store.objects[APP.current("v2")] = link.encode()
    found: set[str] = set()
    with pytest.raises(Corrupt, match=says) as caught:
        await collect(repository(store), found)
    assert found == {"v1", "v3"}
    assert "team/app" in str(caught.value)
    assert "tag v2" in str(caught.value)
    with pytest.raises(Corrupt):
        await repository(store).resolve("v2")
    assert (await repository(store).resolve("v1")).digest == IMAGE.digest


async def test_unreadable_link_hides_no_other_tag() -> None:
    store = MemoryStore()
    for tag in ("v1", "v2"):
        await put_image(repository(store), IMAGE, tag)
    store.fail("get", APP.current("v1"), Unavailable("store", "read", "reset"))
    found: set[str] = set()
    with pytest.raises(Unavailable) as caught:
        await collect(repository(store), found)
    assert found == {"v2"}
    assert caught.value.repository == "team/app"


async def test_half_deleted_tag_is_left_out_with_a_warning() -> None:
    store, told = MemoryStore(), Warnings()
    site = DistributionSite(store, events=told.events)
    for tag in ("v1", "v2"):
        await put_image(site.repository("team/app"), IMAGE, tag)
    del store.objects[APP.current("v1")]
    assert await names(site.repository("team/app")) == ["v2"]
    assert await digests(site.repository("team/app")) == {"v2": IMAGE.digest}
    assert any("tag v1" in text for text in told.texts)


async def test_deleting_a_tag_removes_its_current_link_first_and_its_folder_whole() -> None:
    store = MemoryStore()
    await put_image(repository(store), IMAGE, "v1")
    await put_image(repository(store), INDEX, "v1")
    await put_image(repository(store), IMAGE, "v10")
    store.lives = 1
    with pytest.raises(Killed):
        await repository(store).delete_tag("v1")
    assert APP.current("v1") not in store.objects
    store.lives = None
    await put_image(repository(store), IMAGE, "v1")
    await repository(store).delete_tag("v1")
    assert not [key for key in store.objects if key.startswith(APP.tag("v1"))]
    assert await names(repository(store)) == ["v10"]
    with pytest.raises(NotFound):
        await repository(store).delete_tag("v1")


async def test_tag_that_leads_nowhere_is_not_found_and_said_so() -> None:
    store = MemoryStore()
    await put_image(repository(store), IMAGE, "v1")
    del store.objects[APP.revision(IMAGE.digest)]
    with pytest.raises(NotFound, match=f"v1 refers to {IMAGE.digest}"):
        await repository(store).resolve("v1")


async def test_manifest_whose_bytes_changed_is_corrupt() -> None:
    store = MemoryStore()
    await put_image(repository(store), IMAGE, "v1")
    store.objects[blob_data(IMAGE.digest)] = INDEX.manifest.body
    for reference in ("v1", IMAGE.digest):
        with pytest.raises(Corrupt, match=IMAGE.digest):
            await repository(store).read_manifest(reference)


async def test_repositories_are_found_without_listing_their_content() -> None:
    store = MemoryStore()
    site = DistributionSite(store, events=Events())
    for name in ("a", "a/b", "c/d/e"):
        await put_image(site.repository(name), IMAGE, "v1")
    store.objects[f"{ROOT}/repositories/half/_uploads/1/data"] = b""
    store.calls.clear()
    assert sorted([name async for page in site.repositories() for name in page]) == ["a", "a/b", "c/d/e"]
    assert set(store.calls) == {"list"}
    assert store.calls["list"] <= 8


# --- refusals ---


def docker_without_media_type() -> BuiltImage:
    built = content.without_media_type("quiet")
    manifest = parse_manifest(built.manifest.body, DOCKER_MANIFEST)
    return BuiltImage(manifest, built.blobs)


@pytest.mark.parametrize(
    ("built", "says"),
    [
        (content.schema1("old"), "schema 1"),
        (content.unknown_type("thing"), content.UNKNOWN),
        (docker_without_media_type(), "does not say so"),
    ],
)
async def test_what_a_registry_could_not_serve_is_refused_and_nothing_written(
    built: BuiltImage, says: str
) -> None:
    store = MemoryStore()
    assert says in (repository(store).refuses(built.manifest, tagged=True) or "")
    with pytest.raises(Unsupported, match=re.escape(says)) as caught:
        await repository(store).write_manifest(built.manifest, "v1")
    assert "team/app" in str(caught.value)
    assert store.objects == {}


async def test_sha512_is_refused() -> None:
    store = MemoryStore()
    digest = digest_of(b"data", "sha512")
    with pytest.raises(Unsupported, match="sha256"):
        await repository(store).write_blob(BytesSource(b"data", digest=digest))
    wide = parse_manifest(IMAGE.manifest.body, "", digest_of(IMAGE.manifest.body, "sha512"))
    with pytest.raises(Unsupported, match="sha256"):
        await repository(store).write_manifest(wide, "v1")
    assert store.objects == {}


@pytest.mark.parametrize("built", [IMAGE, INDEX, content.docker_image("d"), content.without_media_type("w")])
def test_what_a_registry_serves_is_not_refused(built: BuiltImage) -> None:
    assert repository(MemoryStore()).refuses(built.manifest, tagged=True) is None


@pytest.mark.parametrize("name", ["../up", "/etc", "a/../b", "_layers", "A", ""])
async def test_names_that_lead_elsewhere_are_rejected(name: str) -> None:
    store = MemoryStore()
    one = repository(store, name)
    with pytest.raises(Rejected):
        await names(one)
    with pytest.raises(Rejected):
        await one.write_blob(BytesSource(b"data"))
    with pytest.raises(Rejected):
        await one.write_manifest(IMAGE.manifest, "v1")
    assert store.objects == {}
    assert not store.calls


async def test_tag_that_is_none_is_rejected() -> None:
    store = MemoryStore()
    await put_image(repository(store), IMAGE)
    before = dict(store.objects)
    with pytest.raises(Rejected, match="invalid tag"):
        await repository(store).write_manifest(IMAGE.manifest, "../../evil")
    assert store.objects == before


# --- the site ---


@pytest.mark.parametrize("key", ["holiday.jpg", "index.json", "docker/other/file", "docker"])
async def test_what_is_no_registry_layout_is_no_empty_listing(key: str) -> None:
    site = DistributionSite(MemoryStore(objects={key: b""}), events=Events())
    with pytest.raises(Unsupported, match=ROOT):
        _ = [page async for page in site.repositories()]
    assert (await site.check()).problems
    assert not (await site.check(push="a")).problems


async def test_nothing_at_all_is_an_empty_listing() -> None:
    site = DistributionSite(MemoryStore(), events=Events())
    assert [page async for page in site.repositories()] == []


async def test_check_tries_what_a_run_does_and_leaves_nothing() -> None:
    store = MemoryStore()
    site = DistributionSite(store, events=Events())
    await put_image(site.repository("a"), IMAGE, "v1")
    before = dict(store.objects)
    found = await site.check(repositories=["a", "missing"], push="a")
    assert dict(found.findings)["pull a"] == "yes"
    assert dict(found.findings)["push"] == "yes"
    assert len(found.problems) == 1
    assert "missing" in found.problems[0]
    assert store.objects == before


async def test_leftovers_are_swept_before_the_first_write_only() -> None:
    store = MemoryStore()
    site = DistributionSite(store, events=Events())
    with pytest.raises(NotFound):
        await names(site.repository("a"))
    assert store.calls["sweep"] == 0
    await put_image(site.repository("a"), IMAGE, "v1")
    assert store.calls["sweep"] == 1


# --- siblings ---


def siblings() -> tuple[DistributionRepository, DistributionRepository, MemoryStore]:
    """Two repositories at two sites of one store, below prefixes of their own, and the second one's store."""
    near, far = MemoryStore("near"), MemoryStore("far")
    far.siblings.append(near)
    return repository(near, "a"), repository(far, "b"), far


async def test_sibling_gives_a_blob_without_its_bytes_passing_through() -> None:
    near, far, store = siblings()
    await near.write_blob(BytesSource(b"data"))
    descriptor = Descriptor("text/plain", digest_of(b"data"), 4)
    assert isinstance(far, CopiesFromSibling)
    assert isinstance(far, ListsDigests)
    assert await far.copy_blob(descriptor, near)
    assert await far.has_blob(descriptor.digest)
    assert store.objects[blob_data(descriptor.digest)] == b"data"
    assert store.calls["read"] == store.calls["upload"] == 0


async def test_stranger_gives_nothing() -> None:
    near, _, _ = siblings()
    await near.write_blob(BytesSource(b"data"))
    store = MemoryStore("stranger")
    descriptor = Descriptor("text/plain", digest_of(b"data"), 4)
    assert not await repository(store).copy_blob(descriptor, near)
    assert not await repository(store).copy_blob(descriptor, MemorySite().repository("a"))
    assert store.objects == {}


async def test_sibling_that_lacks_the_blob_or_has_another_size_is_named() -> None:
    near, far, store = siblings()
    descriptor = Descriptor("text/plain", digest_of(b"data"), 4)
    with pytest.raises(NotFound, match="near"):
        await far.copy_blob(descriptor, near)
    await near.write_blob(BytesSource(b"data"))
    with pytest.raises(Corrupt, match=r"near.*4 bytes"):
        await far.copy_blob(Descriptor("text/plain", descriptor.digest, 5), near)
    assert store.objects == {}


async def test_version_of_another_kind_is_only_compared() -> None:
    store = MemoryStore()
    await put_image(repository(store), IMAGE, "v1")
    known = {
        "v1": Listed("v1", INDEX.digest, "of an older program"),
        "gone": Listed("gone", INDEX.digest, "1"),
    }
    found = [one async for page in repository(store).listed(known) for one in page]
    assert [(one.tag, one.digest) for one in found] == [("v1", IMAGE.digest)]
