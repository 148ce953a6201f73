"""Blobs in both layouts: nothing visible before it is right, and what is wrong with a directory is told per item."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from replicator.demo.images import image
from replicator.errors import Corrupt, SiteError, Unavailable
from replicator.events import Events
from replicator.flow.clock import SystemClock
from replicator.flow.parallel import each
from replicator.model.descriptor import Descriptor
from replicator.model.digest import Digest, digest_of
from replicator.ports import CopiesFromSibling, ObjectStore, Site
from replicator.sites.layouts import blobs
from replicator.sites.layouts.blobs import KeepsObjects
from replicator.sites.layouts.distribution.site import DistributionSite
from replicator.sites.layouts.oci.site import OciSite
from replicator.sites.objects.local import copying
from replicator.sites.objects.local.store import LocalStore
from replicator.sites.objects.local.workspace import Temporary
from replicator.sites.objects.settings import LocalSettings
from tests.fakes.layouts import Warnings, names, put_image
from tests.fakes.objects import MemoryStore
from tests.fakes.source import BytesSource

DATA = bytes(range(256)) * 1_024
LAYOUTS = [DistributionSite, OciSite]


def blob_descriptor(size: int | None) -> Descriptor:
    return Descriptor("application/octet-stream", digest_of(DATA), size)


class Stalling(BytesSource):
    """A source that stops half way, for ever; `reached` says when."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.reached = asyncio.Event()

    @asynccontextmanager
    async def open(self, offset: int = 0) -> AsyncIterator[AsyncIterator[bytes]]:
        async def chunks() -> AsyncIterator[bytes]:
            yield DATA[:1000]
            self.reached.set()
            await asyncio.Event().wait()

        yield chunks()


@pytest.mark.parametrize("layout", LAYOUTS)
async def test_cancelled_upload_leaves_nothing(layout: type[DistributionSite | OciSite]) -> None:
    store = MemoryStore()
    source = Stalling(DATA)
    task = asyncio.create_task(layout(store, events=Events()).repository("a").write_blob(source))
    await source.reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert store.objects == {}
    assert store.open_uploads == 0


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "source",
    [
        lambda: BytesSource(DATA, digest=digest_of(b"other")),
        lambda: BytesSource(DATA, size=len(DATA) - 1),
        lambda: BytesSource(DATA, size=len(DATA) + 1),
        lambda: BytesSource(b"", size=1),
        lambda: BytesSource(DATA, breaks=Unavailable("elsewhere", "read", "reset"), breaks_at=100_000),
    ],
    ids=["other bytes", "too many", "too few", "none", "broken"],
)
async def test_wrong_bytes_leave_nothing(
    layout: type[DistributionSite | OciSite], source: Callable[[], BytesSource]
) -> None:
    store = MemoryStore()
    with pytest.raises((Corrupt, Unavailable)):
        await layout(store, events=Events()).repository("a").write_blob(source())
    assert store.objects == {}
    assert store.open_uploads == 0


class Verified(BytesSource):
    """A source that hashes for itself, or says so."""

    is_verified = True


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("verified", [False, True])
async def test_what_a_source_has_verified_is_not_hashed_again(
    layout: type[DistributionSite | OciSite], monkeypatch: pytest.MonkeyPatch, *, verified: bool
) -> None:
    hashed: list[str] = []

    def new_hash(digest: Digest) -> object:
        hashed.append(digest)
        return hashlib.sha256()

    monkeypatch.setattr(blobs, "new_hash", new_hash)
    store = MemoryStore()
    source = (Verified if verified else BytesSource)(DATA)
    await layout(store, events=Events()).repository("a").write_blob(source)
    assert hashed == ([] if verified else [digest_of(DATA)])


@pytest.mark.parametrize("layout", LAYOUTS)
async def test_failing_store_is_named_with_the_repository(layout: type[DistributionSite | OciSite]) -> None:
    store = MemoryStore()
    store.fail("upload", "", Unavailable("store", "write object", "disk full"))
    with pytest.raises(Unavailable, match="store: team/app: write object: disk full"):
        await layout(store, events=Events()).repository("team/app").write_blob(BytesSource(DATA))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [len(DATA) - 1, len(DATA) + 1])
async def test_blob_of_another_size_is_corrupt_and_remembered(
    layout: type[DistributionSite | OciSite], size: int
) -> None:
    repository = layout(MemoryStore(), events=Events()).repository("a")
    await repository.write_blob(BytesSource(DATA))
    source = repository.blob(blob_descriptor(size))
    with pytest.raises(Corrupt):
        async with source.open() as chunks:
            _ = [chunk async for chunk in chunks]
    assert isinstance(source.failure, Corrupt)


async def test_reading_from_the_end_asks_the_store_nothing() -> None:
    store = MemoryStore()
    repository = OciSite(store, events=Events()).repository("a")
    await repository.write_blob(BytesSource(DATA))
    async with repository.blob(blob_descriptor(len(DATA))).open(len(DATA)) as chunks:
        assert [chunk async for chunk in chunks] == []
    assert store.calls["read"] == 0


async def test_failure_stops_what_was_not_begun() -> None:
    begun: list[int] = []

    async def do(number: int) -> int:
        begun.append(number)
        await asyncio.sleep(0)
        if number == 3:
            raise Unavailable("store", "do", "no")
        return number

    with pytest.raises(Unavailable):
        await each(range(100), do, width=4)
    assert len(begun) < 12
    assert await each(range(3), do, width=2) == [0, 1, 2]


# --- real directories ---


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ObjectStore]:
    """The folder `root`, which is not there yet."""
    opened = LocalStore(LocalSettings("shelf", tmp_path / "root"), events=Events(), clock=SystemClock())
    yield opened
    await opened.aclose()


def site_on(layout: type[DistributionSite | OciSite], store: ObjectStore) -> Site:
    return layout(store, events=Events())


def repositories_folder(layout: type[DistributionSite | OciSite], root: Path) -> Path:
    return root / "docker/registry/v2/repositories" if layout is DistributionSite else root


@pytest.mark.parametrize("layout", LAYOUTS)
async def test_file_where_a_folder_should_be_fails_that_repository_only(
    layout: type[DistributionSite | OciSite], store: ObjectStore, tmp_path: Path
) -> None:
    site = site_on(layout, store)
    await put_image(site.repository("good"), image("a"), "v1")
    (repositories_folder(layout, tmp_path / "root") / "team").write_text("a file")
    with pytest.raises(SiteError, match="shelf: team/app: "):
        await put_image(site.repository("team/app"), image("a"), "v1")
    with pytest.raises(SiteError, match="shelf: team/app: "):
        await names(site.repository("team/app"))
    assert await names(site.repository("good")) == ["v1"]
    assert [name async for page in site.repositories() for name in page] == ["good"]


@pytest.mark.parametrize("layout", LAYOUTS)
async def test_link_out_of_the_root_is_not_followed(
    layout: type[DistributionSite | OciSite], store: ObjectStore, tmp_path: Path
) -> None:
    site = site_on(layout, store)
    await put_image(site.repository("good"), image("a"), "v1")
    outside = tmp_path / "outside"
    outside.mkdir()
    (repositories_folder(layout, tmp_path / "root") / "evil").symlink_to(outside)
    with pytest.raises(SiteError, match="evil"):
        await put_image(site.repository("evil"), image("b"), "v1")
    assert list(outside.rglob("*")) == []
    assert [name async for page in site.repositories() for name in page] == ["good"]


@pytest.mark.parametrize("layout", LAYOUTS)
async def test_links_in_circles_end_and_an_alias_is_a_repository(
    layout: type[DistributionSite | OciSite], store: ObjectStore, tmp_path: Path
) -> None:
    site = site_on(layout, store)
    for name in ("team/app", "other/app"):
        await put_image(site.repository(name), image(name), "v1")
    folder = repositories_folder(layout, tmp_path / "root")
    for link, target in (
        ("team/self", "."),
        ("team/above", ".."),
        ("team/x", "../other"),
        ("other/y", "../team"),
    ):
        (folder / link).symlink_to(target)
    (folder / "alias").symlink_to("team/app")
    found = sorted([name async for page in site.repositories() for name in page])
    assert found == ["alias", "other/app", "other/y/app", "team/app", "team/x/app"]
    assert await names(site.repository("alias")) == ["v1"]


async def test_layouts_share_blobs_by_hard_links(store: ObjectStore, tmp_path: Path) -> None:
    site = OciSite(store, events=Events())
    await site.repository("a").write_blob(BytesSource(DATA))
    assert await site.repository("b").write_blob(BytesSource(DATA), origin="a") == "mounted"
    paths = [tmp_path / "root" / name / "blobs" / digest_of(DATA).replace(":", "/") for name in ("a", "b")]
    assert paths[0].stat().st_ino == paths[1].stat().st_ino


@pytest.mark.parametrize("clones", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
async def test_rotten_blob_of_the_right_size_is_not_copied_to_a_sibling(
    layout: type[DistributionSite | OciSite], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, clones: bool
) -> None:
    if clones:  # no Btrfs here: the clone is done by hand
        monkeypatch.setattr("replicator.sites.objects.local.copying.clone", copied_whole)
    stores = [
        LocalStore(LocalSettings(name, tmp_path / name), events=Events(), clock=SystemClock())
        for name in ("old", "new")
    ]
    old, new = (site_on(layout, one).repository("a") for one in stores)
    await old.write_blob(BytesSource(DATA))
    assert isinstance(new, CopiesFromSibling)
    source = BytesSource(DATA)
    assert await new.copy_blob(source.descriptor, old)
    assert await new.has_blob(source.descriptor.digest, len(DATA))
    other = BytesSource(b"other" * 1000)
    await old.write_blob(other)
    assert isinstance(old, KeepsObjects)
    (tmp_path / "old" / old.blob_key(other.descriptor.digest)).write_bytes(b"rotte" * 1000)
    with pytest.raises(Corrupt, match=r"old: .*hash to"):
        await new.copy_blob(other.descriptor, old)
    assert not await new.has_blob(other.descriptor.digest)
    assert isinstance(new, KeepsObjects)
    assert not (tmp_path / "new" / new.blob_key(other.descriptor.digest)).exists()
    for one in stores:
        await one.aclose()


def copied_whole(source: int, target: Temporary) -> bool:
    target.write(os.pread(source, 1 << 20, 0))
    return True


async def test_rotten_blob_gets_no_second_name_and_is_copied_instead(
    store: ObjectStore, tmp_path: Path
) -> None:
    warnings = Warnings()
    site = OciSite(store, events=warnings.events)
    await site.repository("a").write_blob(BytesSource(DATA))
    path = tmp_path / "root/a/blobs" / digest_of(DATA).replace(":", "/")
    path.write_bytes(bytes(len(DATA)))
    assert await site.repository("b").write_blob(BytesSource(DATA), origin="a") == "copied"
    assert (tmp_path / "root/b/blobs" / digest_of(DATA).replace(":", "/")).read_bytes() == DATA
    (text,) = warnings.texts
    assert "hash to" in text
    assert "a/blobs" in text


@pytest.mark.parametrize("by", ["us", "others"])
async def test_file_is_hashed_when_it_is_written_or_before_its_first_link(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    site = OciSite(store, events=Events())
    await site.repository("a").write_blob(BytesSource(DATA))
    if by == "others":
        os.utime(tmp_path / "root/a/blobs" / digest_of(DATA).replace(":", "/"), ns=(1, 1))
    hashed: list[int] = []
    real = copying.hash_step

    def hash_step(fd: int, offset: int, state: copying.Hash) -> int:
        hashed.append(offset)
        return real(fd, offset, state)

    monkeypatch.setattr("replicator.sites.objects.local.store.hash_step", hash_step)
    for name in ("b", "c", "d"):
        assert await site.repository(name).write_blob(BytesSource(DATA), origin="a") == "mounted"
    assert len(hashed) == (0 if by == "us" else 2)  # all of it, and its end


@pytest.mark.parametrize(
    ("layout", "ours", "others"),
    [
        (
            OciSite,
            [f"blobs/sha256/{'a' * 64}", f"team/app/blobs/sha256/{'a' * 64}"],
            [
                "dump",
                "blobs/sha256/x",
                "index.json",
                f"team/app/x/sha256/{'a' * 64}",
                f"UP/blobs/sha256/{'a' * 64}",
            ],
        ),
        (
            DistributionSite,
            [f"docker/registry/v2/blobs/sha256/aa/{'a' * 64}/data"],
            [
                "docker/registry/v2/repositories/a/_uploads/1/data",
                f"backup/sha256/aa/{'a' * 64}/data",
                "dump",
            ],
        ),
    ],
)
async def test_sweep_is_for_keys_that_the_layout_writes(
    layout: type[DistributionSite | OciSite], ours: list[str], others: list[str]
) -> None:
    memory = MemoryStore()
    await site_on(layout, memory).repository("a").write_blob(BytesSource(DATA))
    assert memory.swept is not None
    assert [key for key in ours + others if memory.swept(key)] == ours


async def test_agents_on_one_directory_lose_no_tag(tmp_path: Path) -> None:
    built = image("a")
    stores = [
        LocalStore(LocalSettings("shelf", tmp_path / "root"), events=Events(), clock=SystemClock())
        for _ in range(2)
    ]
    agents = [OciSite(one, events=Events()).repository("a") for one in stores]
    await put_image(agents[0], built)
    async with asyncio.TaskGroup() as tasks:
        for number in range(60):
            tasks.create_task(agents[number % 2].write_manifest(built.manifest, f"v{number}"))
    assert len(await names(agents[0])) == 60
    for one in stores:
        await one.aclose()
