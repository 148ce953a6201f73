"""OCI image layouts: what is written when, and `index.json` under several writers and of other tools."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from replicator.demo.images import ARM64, image, index
from replicator.errors import Corrupt, MissingReference, NotFound, Rejected, Unavailable, Unsupported
from replicator.events import Events
from replicator.model.descriptor import Descriptor
from replicator.model.digest import Digest, digest_of, encoded
from replicator.model.manifest import parse_manifest
from replicator.sites.layouts.oci.entries import CONTAINERD_NAME, REF_NAME
from replicator.sites.layouts.oci.repository import OciRepository
from replicator.sites.layouts.oci.site import OciSite
from tests.fakes import content
from tests.fakes.layouts import collect, digests, names, put_image
from tests.fakes.objects import Killed, MemoryStore
from tests.fakes.source import BytesSource

IMAGE = image("a")
OTHER = image("b", platform=ARM64)
INDEX = index([IMAGE, OTHER])


def repository(store: MemoryStore, name: str = "team/app") -> OciRepository:
    return OciSite(store, events=Events()).repository(name)


def blob(digest: Digest) -> str:
    return f"team/app/blobs/{digest.replace(':', '/')}"


def entries(store: MemoryStore) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(store.objects["team/app/index.json"])["manifests"]
    return found


def served(store: MemoryStore) -> set[str]:
    """The tags, each followed to its last blob as another tool would."""
    if "team/app/index.json" not in store.objects:
        return set()
    assert json.loads(store.objects["team/app/oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    for entry in entries(store):
        waiting = [Digest(entry["digest"])]
        while waiting:
            digest = waiting.pop()
            assert digest_of(store.objects[blob(digest)]) == digest
            manifest = parse_manifest(store.objects[blob(digest)], "")
            assert all(digest_of(store.objects[blob(one.digest)]) == one.digest for one in manifest.blobs)
            waiting += [child.digest for child in manifest.children]
    return {entry["annotations"][REF_NAME] for entry in entries(store) if "annotations" in entry}


async def test_killed_after_any_change_no_tag_is_broken_and_the_next_run_completes() -> None:
    whole = MemoryStore()
    await put_image(repository(whole), INDEX, "v1")
    for lives in range(len(whole.objects) + 5):
        store = MemoryStore()
        store.lives = lives
        try:
            await put_image(repository(store), INDEX, "v1")
        except Killed:
            served(store)
        store.lives = None
        await put_image(repository(store), INDEX, "v1")
        assert served(store) == {"v1"}
        assert store.objects == whole.objects


async def test_roots_are_named_and_children_are_not() -> None:
    store = MemoryStore()
    await put_image(repository(store), INDEX, "v1")
    assert entries(store) == [
        {
            "mediaType": INDEX.manifest.media_type,
            "digest": INDEX.digest,
            "size": len(INDEX.manifest.body),
            "annotations": {REF_NAME: "v1"},
        }
    ]


async def test_root_by_digest_is_named_without_a_tag_until_it_has_one() -> None:
    store = MemoryStore()
    await put_image(repository(store), IMAGE)
    assert [entry["digest"] for entry in entries(store)] == [IMAGE.digest]
    assert "annotations" not in entries(store)[0]
    await repository(store).write_manifest(IMAGE.manifest, "v1")
    await repository(store).write_manifest(IMAGE.manifest)
    assert [entry["annotations"] for entry in entries(store)] == [{REF_NAME: "v1"}]


async def test_several_tags_share_a_digest() -> None:
    store = MemoryStore()
    for tag in ("v1", "v1.0", "latest"):
        await put_image(repository(store), IMAGE, tag)
    await put_image(repository(store), OTHER, "latest")
    assert await digests(repository(store)) == {
        "v1": IMAGE.digest,
        "v1.0": IMAGE.digest,
        "latest": OTHER.digest,
    }


async def test_referrer_is_named_with_its_type_and_annotations() -> None:
    store = MemoryStore()
    signature = content.artifact("signed", IMAGE.manifest)
    await put_image(repository(store), IMAGE, "v1")
    await put_image(repository(store), signature)
    assert entries(store)[1]["artifactType"] == "application/vnd.example+type"
    assert entries(store)[1]["annotations"] == {"org.example.seed": "signed"}
    assert await names(repository(store)) == ["v1"]
    for fresh in (repository(store), repository(store)):
        (found,) = await fresh.referrers(IMAGE.digest)
        assert (found.digest, found.artifact_type) == (signature.digest, "application/vnd.example+type")
        assert found.annotations == {"org.example.seed": "signed"}


async def test_referrers_of_the_fallback_tag_are_found() -> None:
    store = MemoryStore()
    signature = content.artifact("signed", IMAGE.manifest)
    await put_image(repository(store), IMAGE, "v1")
    await put_image(repository(store), signature)
    await put_image(repository(store), index([signature]), f"sha256-{encoded(IMAGE.digest)}")
    # As regclient writes it: the fallback tag alone names the referrer.
    rewrite(store, lambda top: top["manifests"].pop(1))
    found = await repository(store).referrers(IMAGE.digest)
    assert [one.digest for one in found] == [signature.digest]


async def test_referrers_are_read_once() -> None:
    store = MemoryStore()
    site = OciSite(store, events=Events())
    await put_image(repository(store), IMAGE, "v1")
    await site.repository("team/app").referrers(IMAGE.digest)
    store.calls.clear()
    await site.repository("team/app").referrers(OTHER.digest)
    assert store.calls["get"] == 0


# --- index.json of others ---


def rewrite(store: MemoryStore, change: Any) -> None:
    top = json.loads(store.objects["team/app/index.json"])
    change(top)
    store.objects["team/app/index.json"] = json.dumps(top).encode()


def named(digest: str, **annotations: str) -> dict[str, Any]:
    size = len(IMAGE.manifest.body)
    return {
        "mediaType": IMAGE.manifest.media_type,
        "digest": digest,
        "size": size,
        "annotations": annotations,
    }


async def test_what_others_wrote_is_kept() -> None:
    store = MemoryStore()
    await put_image(repository(store), IMAGE, "v1")
    foreign = {
        "mediaType": "application/x.unknown",
        "digest": digest_of(b"x"),
        "size": 1,
        "x-new": [1, {"y": 2}],
    }

    def change(top: dict[str, Any]) -> None:
        top["annotations"] = {"org.example.owner": "else"}
        top["manifests"].append(foreign)
        top["manifests"][0]["annotations"]["org.example.note"] = "kept"

    rewrite(store, change)
    await put_image(repository(store), OTHER, "v2")
    await put_image(repository(store), IMAGE, "v1")
    assert foreign in entries(store)
    assert json.loads(store.objects["team/app/index.json"])["annotations"] == {"org.example.owner": "else"}
    assert entries(store)[0]["annotations"] == {REF_NAME: "v1", "org.example.note": "kept"}


async def test_of_two_entries_with_one_tag_the_last_counts_and_one_is_left_after_a_rewrite() -> None:
    store = MemoryStore()
    await put_image(repository(store), IMAGE, "v1")
    await put_image(repository(store), OTHER, "v2")
    rewrite(store, lambda top: top["manifests"][1]["annotations"].update({REF_NAME: "v1"}))
    assert await digests(repository(store)) == {"v1": OTHER.digest}
    assert (await repository(store).resolve("v1")).digest == OTHER.digest
    await repository(store).write_manifest(OTHER.manifest, "v1")
    assert len(entries(store)) == 1


@pytest.mark.parametrize(
    "annotations",
    [
        {REF_NAME: "v7"},
        {REF_NAME: "docker.io/library/thing:v7"},
        {CONTAINERD_NAME: "docker.io/library/thing:v7"},
        {CONTAINERD_NAME: "docker.io/library/thing:v6", REF_NAME: "v7"},
        {CONTAINERD_NAME: "docker.io/library/thing:v7", REF_NAME: "no tag at all"},
    ],
)
async def test_tags_of_other_tools_are_understood_and_move(annotations: dict[str, str]) -> None:
    store = MemoryStore()
    await put_image(repository(store), IMAGE, "v1")
    await put_image(repository(store), OTHER, "v2")
    rewrite(store, lambda top: top["manifests"].append(named(IMAGE.digest, **annotations)))
    assert (await digests(repository(store)))["v7"] == IMAGE.digest
    await repository(store).write_manifest(OTHER.manifest, "v7")
    assert (await digests(repository(store)))["v7"] == OTHER.digest
    last = entries(store)[-1]["annotations"]
    assert last.get(CONTAINERD_NAME) == annotations.get(CONTAINERD_NAME)


@pytest.mark.parametrize("digest", ["sha256:00", "", 7, None])
async def test_broken_entry_hides_no_other_tag(digest: Any) -> None:
    store = MemoryStore()
    await put_image(repository(store), IMAGE, "v1")
    rewrite(store, lambda top: top["manifests"].insert(0, named(digest, **{REF_NAME: "bad"})))
    found: set[str] = set()
    with pytest.raises(Corrupt, match="tag bad"):
        await collect(repository(store), found)
    assert found == {"v1"}
    with pytest.raises(Corrupt):
        await repository(store).resolve("bad")
    await put_image(repository(store), OTHER, "v2")
    assert (await repository(store).resolve("v1")).digest == IMAGE.digest


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b'{"schemaVersion":3,"manifests":[]}',
        b'{"schemaVersion":2}',
        b'{"schemaVersion":2,"manifests":[7]}',
        b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","manifests":[]}',
    ],
)
async def test_index_that_is_none_is_corrupt_and_never_written_over(data: bytes) -> None:
    store = MemoryStore()
    await put_image(repository(store), IMAGE, "v1")
    store.objects["team/app/index.json"] = data
    with pytest.raises(Corrupt, match=r"index\.json") as caught:
        await names(repository(store))
    assert "team/app" in str(caught.value)
    with pytest.raises(Corrupt):
        await repository(store).write_manifest(IMAGE.manifest, "v2")
    assert store.objects["team/app/index.json"] == data


@pytest.mark.parametrize(
    ("marker", "error"),
    [(b'{"imageLayoutVersion":"2.0.0"}', Unsupported), (b"{}", Corrupt), (b"", Corrupt), (None, Corrupt)],
)
async def test_layout_of_another_version_or_none_is_told(
    marker: bytes | None, error: type[Exception]
) -> None:
    store = MemoryStore()
    await put_image(repository(store), IMAGE, "v1")
    del store.objects["team/app/oci-layout"]
    if marker is not None:
        store.objects["team/app/oci-layout"] = marker
    before = store.objects["team/app/index.json"]
    with pytest.raises(error, match="oci-layout"):
        await names(repository(store))
    with pytest.raises(error, match="oci-layout"):
        await repository(store).write_manifest(IMAGE.manifest, "v2")
    assert store.objects["team/app/index.json"] == before


async def test_layout_that_vanished_is_made_anew() -> None:
    store = MemoryStore()
    one = repository(store)
    await put_image(one, IMAGE, "v1")
    store.objects.clear()
    with pytest.raises(NotFound):
        await names(one)
    await put_image(one, OTHER, "v2")
    assert served(store) == {"v2"}


async def test_entry_that_leads_nowhere_is_not_found() -> None:
    store = MemoryStore()
    await put_image(repository(store), IMAGE, "v1")
    del store.objects[blob(IMAGE.digest)]
    for read in (repository(store).resolve, repository(store).read_manifest):
        with pytest.raises(NotFound, match=r"v1|manifest"):
            await read("v1")


async def test_manifest_of_another_size_or_bytes_is_corrupt() -> None:
    store = MemoryStore()
    await put_image(repository(store), IMAGE, "v1")
    store.objects[blob(IMAGE.digest)] = b"{}"
    with pytest.raises(Corrupt, match="2 bytes"):
        await repository(store).resolve("v1")
    with pytest.raises(Corrupt, match="hash to"):
        await repository(store).read_manifest("v1")


async def test_config_is_no_manifest() -> None:
    store = MemoryStore()
    await put_image(repository(store), IMAGE, "v1")
    for digest in IMAGE.blobs:
        with pytest.raises(NotFound):
            await repository(store).read_manifest(digest)


# --- several writers ---


async def test_tags_written_at_once_go_out_together() -> None:
    store = MemoryStore()
    one = repository(store)
    await put_image(one, IMAGE)
    store.calls.clear()
    async with asyncio.TaskGroup() as tasks:
        for number in range(1_000):
            tasks.create_task(one.write_manifest(IMAGE.manifest, f"v{number}"))
    assert len(await names(one)) == 1_000
    assert store.calls["put"] < 20


async def test_agents_writing_at_once_lose_no_tag() -> None:
    stores = [MemoryStore(), MemoryStore(), MemoryStore()]
    for store in stores[1:]:
        store.objects = stores[0].objects
    await put_image(repository(stores[0]), IMAGE)
    agents = [repository(store) for store in stores]

    async def write(number: int) -> None:
        await agents[number % 3].write_manifest(IMAGE.manifest, f"v{number}")

    async with asyncio.TaskGroup() as tasks:
        for number in range(120):
            tasks.create_task(write(number))
    assert len(await names(agents[0])) == 120


async def test_rewrite_begins_anew_where_another_agent_was_faster() -> None:
    store = MemoryStore()
    one = repository(store)
    await put_image(one, IMAGE, "v1")
    rivals = iter(["their1", "their2"])

    def rival(key: str) -> None:
        tag = next(rivals, None)
        if key.endswith("index.json") and tag is not None:
            rewrite(store, lambda top: top["manifests"].append(named(IMAGE.digest, **{REF_NAME: tag})))

    store.before_put = rival
    await one.write_manifest(IMAGE.manifest, "v2")
    assert await names(one) == ["their1", "their2", "v1", "v2"]


async def test_being_overtaken_for_ever_ends() -> None:
    store = MemoryStore()
    one = repository(store)
    await put_image(one, IMAGE, "v1")

    def rival(key: str) -> None:
        store.objects[key] += b" "

    store.before_put = rival
    with pytest.raises(Unavailable, match=r"index\.json"):
        await one.write_manifest(IMAGE.manifest, "v2")


async def test_one_failing_change_fails_no_other() -> None:
    store = MemoryStore()
    one = repository(store)
    for tag in ("v1", "v2"):
        await put_image(one, IMAGE, tag)
    results = await asyncio.create_task(
        outcomes(one.delete_tag("v1"), one.delete_tag("missing"), one.write_manifest(IMAGE.manifest, "v3"))
    )
    assert [type(result) for result in results] == [type(None), NotFound, str]
    assert await names(one) == ["v2", "v3"]


async def test_failing_rewrite_fails_all_who_wait_for_it_and_the_next_goes_well() -> None:
    store = MemoryStore()
    one = repository(store)
    await put_image(one, IMAGE, "v1")
    store.fail("put", "index.json", Unavailable("store", "write", "reset"))
    results = await outcomes(*(one.write_manifest(IMAGE.manifest, f"v{number}") for number in (2, 3, 4)))
    assert any(isinstance(result, Unavailable) for result in results)
    await one.write_manifest(IMAGE.manifest, "v5")
    written = {f"v{n}" for n, result in zip((2, 3, 4), results, strict=True) if isinstance(result, str)}
    assert set(await names(one)) == {"v1", "v5"} | written


async def test_cancelled_writer_takes_no_other_with_it() -> None:
    store = MemoryStore()
    one = repository(store)
    await put_image(one, IMAGE, "v1")
    async with asyncio.TaskGroup() as tasks:
        writers = [
            tasks.create_task(one.write_manifest(IMAGE.manifest, f"w{number}")) for number in range(20)
        ]
        for number in range(0, 20, 2):
            for _ in range(number % 5 + 1):
                await asyncio.sleep(0)
            writers[number].cancel()
    found = set(await names(one))
    assert {f"w{number}" for number in range(1, 20, 2)} <= found
    await one.write_manifest(IMAGE.manifest, "last")
    assert "last" in await names(one)


async def outcomes(*work: Any) -> list[Any]:
    async def attempt(one: Any) -> Any:
        try:
            return await one
        except (NotFound, Unavailable) as error:
            return error

    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(attempt(one)) for one in work]
    return [task.result() for task in running]


# --- what is refused, and the site ---


@pytest.mark.parametrize("name", ["blobs", "a/blobs", "a/index.json/b", "oci-layout", "../up", "/etc", ""])
async def test_names_that_are_part_of_a_layout_or_lead_elsewhere_are_rejected(name: str) -> None:
    store = MemoryStore()
    one = repository(store, name)
    with pytest.raises(Rejected):
        await names(one)
    with pytest.raises(Rejected):
        await one.write_blob(BytesSource(b"data"))
    with pytest.raises(Rejected):
        await one.write_manifest(IMAGE.manifest, "v1")
    assert not store.calls


async def test_sha512_is_kept() -> None:
    store = MemoryStore()
    digest = digest_of(b"data", "sha512")
    await repository(store).write_blob(BytesSource(b"data", digest=digest))
    assert store.objects[f"team/app/blobs/sha512/{encoded(digest)}"] == b"data"


async def test_child_is_missing_where_only_its_bytes_of_another_size_are() -> None:
    store = MemoryStore()
    await put_image(repository(store), INDEX, "v1")
    store.objects[blob(OTHER.digest)] = b""
    with pytest.raises(MissingReference) as caught:
        await repository(store).write_manifest(INDEX.manifest, "v2")
    assert caught.value.digests == (OTHER.digest,)


async def test_repositories_are_found_beside_and_below_each_other() -> None:
    store = MemoryStore()
    site = OciSite(store, events=Events())
    for name in ("a", "a/b", "c/d/e"):
        await put_image(site.repository(name), IMAGE, "v1")
    assert sorted([name async for page in site.repositories() for name in page]) == ["a", "a/b", "c/d/e"]


async def test_folder_that_is_itself_a_layout_has_one_repository() -> None:
    store = MemoryStore()
    site = OciSite(store, events=Events(), only="shelf")
    await put_image(site.repository("shelf"), IMAGE, "v1")
    assert {"oci-layout", "index.json"} <= store.objects.keys()
    assert [name async for page in site.repositories() for name in page] == ["shelf"]
    with pytest.raises(Rejected, match="shelf"):
        await names(site.repository("other"))
    assert dict((await site.check()).findings)["layout"] == "oci, one layout"
    with pytest.raises(Unsupported, match="itself an OCI layout"):
        _ = [page async for page in OciSite(store, events=Events()).repositories()]


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("holiday.jpg", "no OCI layout"),
        ("photos/holiday.jpg", "no index.json"),
        ("docker/registry/v2/blobs/x", "distribution"),
    ],
)
async def test_what_is_no_layout_is_no_empty_listing(key: str, says: str) -> None:
    site = OciSite(MemoryStore(objects={key: b""}), events=Events())
    with pytest.raises(Unsupported, match=says):
        _ = [page async for page in site.repositories()]


async def test_nothing_at_all_is_an_empty_listing() -> None:
    assert [page async for page in OciSite(MemoryStore(), events=Events()).repositories()] == []


async def test_sibling_gives_a_blob_without_its_bytes_passing_through() -> None:
    near, far = MemoryStore("near"), MemoryStore("far")
    far.siblings.append(near)
    await repository(near).write_blob(BytesSource(b"data"))
    descriptor = Descriptor("text/plain", digest_of(b"data"), 4)
    assert await repository(far).copy_blob(descriptor, repository(near))
    assert far.objects[blob(descriptor.digest)] == b"data"
    assert far.calls["read"] == far.calls["upload"] == 0
