"""What every kind of repository must do, whatever is behind it.

A kind says what it cannot do; then that is asserted to be `Unsupported`, so that no claim is left untried. After
each test no upload session may be left.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from replicator.demo.images import AMD64, ARM64, image, index
from replicator.errors import (
    AuthFailed,
    Corrupt,
    Denied,
    MissingReference,
    NotFound,
    SiteError,
    Unavailable,
    Unsupported,
)
from replicator.events import Events
from replicator.flow.clock import SystemClock
from replicator.model.descriptor import Descriptor
from replicator.model.digest import Digest, digest_of
from replicator.ports import Repository, Site
from replicator.sites.layouts.distribution.site import DistributionSite
from replicator.sites.layouts.oci.site import OciSite
from replicator.sites.objects.local.store import LocalStore
from replicator.sites.objects.s3.store import S3Store
from replicator.sites.objects.settings import LocalSettings
from replicator.sites.registry.settings import RegistrySettings
from replicator.sites.registry.site import RegistrySite
from tests.fakes import interop
from tests.fakes.distribution import Server
from tests.fakes.layouts import put_image
from tests.fakes.memory import MemorySite
from tests.fakes.registry import FakeRegistry
from tests.fakes.s3 import raw_client, settings
from tests.fakes.source import BytesSource
from tests.fakes.vendors.known import ALL
from tests.fakes.watched import WatchedStore

BIG = bytes(range(256)) * 8_192  # 2 MiB: more than any one chunk


@dataclass
class Kind:
    """A site to try, what it cannot do, and which uploads (repository and session) it has left."""

    site: Site
    uploads: Callable[[], Sequence[str]]
    cannot: frozenset[str] = frozenset()
    keeps_broken_uploads: bool = False
    """distribution refuses to cancel a session into which bytes came since its last answer; it purges them later."""
    origin: str = field(default_factory=lambda: f"conformance/{uuid.uuid4().hex[:12]}")

    @property
    def repository(self) -> Repository:
        """One that nobody else uses."""
        return self.site.repository(self.origin)

    def leftovers(self) -> list[str]:
        """Upload sessions left by this test; a server may be shared."""
        return [upload for upload in self.uploads() if self.origin in upload]

    def breaks_upload(self) -> None:
        """To be said by a test that breaks an upload after its first byte."""
        if self.keeps_broken_uploads:
            self.uploads = list

    def other(self) -> Repository:
        """Another one."""
        return self.site.repository(f"{self.origin}-other")


def registry_site(settings: RegistrySettings, *, delete_tag: bool = False) -> RegistrySite:
    """`delete_tag` is what a user says of a registry whose host does not tell that it can."""
    settings = replace(settings, capabilities={"delete_tag": True} if delete_tag else {})
    return RegistrySite(settings, events=Events(), clock=SystemClock())


def sessions(store: WatchedStore) -> list[str]:
    return [f"{upload.repository} {upload.id}" for upload in store.uploads.values()]


def distribution_uploads(storage: Path) -> list[str]:
    return [str(upload) for upload in storage.glob("docker/registry/v2/repositories/**/_uploads/*")]


DEBIAN = frozenset({"referrers", "delete_tag"})
OLAREG = frozenset({"catalog", "missing repository"})
ZOT = frozenset({"missing children", "blobs apart"})
"""It takes an index whose images it lacks; a HEAD of a blob that another repository has puts it there."""
SERVERS = {
    "docker-registry": "docker_registry",
    "htpasswd": "htpasswd_registry",
    "token": "token_registry",
    "tls": "tls_registry",
}
INTEROP = {"distribution3": interop.distribution3, "olareg": interop.olareg, "real zot": interop.zot}
S3_ENDPOINTS = {"S3": "s3_endpoint", "versitygw": "versitygw_endpoint"}
LAYOUTS: dict[str, type[DistributionSite | OciSite]] = {"distribution": DistributionSite, "oci": OciSite}
VENDORS = {vendor.kind: vendor for vendor in ALL}
with_bucket: set[str] = set()
KINDS = [
    "memory",
    "demo",
    *SERVERS,
    *VENDORS,
    *(f"{layout} on {medium}" for layout in LAYOUTS for medium in ("a directory", "S3")),
    *(pytest.param(f"{layout} on versitygw", marks=pytest.mark.interop) for layout in LAYOUTS),
    *(pytest.param(name, marks=pytest.mark.interop) for name in INTEROP),
]


@pytest.fixture(params=KINDS)
async def kind(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Kind]:
    async with AsyncExitStack() as stack:
        kind = await made(request, tmp_path, stack)
        stack.push_async_callback(kind.site.aclose)
        yield kind
        assert kind.leftovers() == []


async def made(  # noqa: PLR0911 - a table
    request: pytest.FixtureRequest, folder: Path, stack: AsyncExitStack
) -> Kind:
    name: str = request.param
    if name == "memory":
        memory = MemorySite()
        return Kind(memory, lambda: sessions(memory.store))
    if name == "demo":
        fake = await stack.enter_async_context(FakeRegistry())
        site = registry_site(RegistrySettings("demo", fake.url), delete_tag=True)
        return Kind(site, lambda: sessions(fake.store))
    if name in VENDORS:
        vendor = await stack.enter_async_context(VENDORS[name]())
        site = RegistrySite(vendor.settings(name), events=Events(), clock=SystemClock())
        return Kind(site, lambda: sessions(vendor.store), vendor.cannot, origin=vendor.repository)
    layout, _, medium = name.partition(" on ")
    if medium:
        s3 = S3_ENDPOINTS.get(medium)
        return await on_s3(layout, request.getfixturevalue(s3)) if s3 else on_directory(layout, folder)
    if name in SERVERS:
        server: Server = request.getfixturevalue(SERVERS[name])
        site = registry_site(server.settings())
        return Kind(site, lambda: distribution_uploads(server.storage), DEBIAN, keeps_broken_uploads=True)
    started = stack.enter_context(INTEROP[name](folder))
    site = registry_site(started.settings(), delete_tag=True)
    if name == "distribution3":
        cannot = frozenset({"referrers"})
        return Kind(site, lambda: distribution_uploads(started.storage), cannot, keeps_broken_uploads=True)
    uploads = ".uploads" if name == "real zot" else "_uploads"
    cannot = ZOT if name == "real zot" else OLAREG
    return Kind(site, lambda: [str(path) for path in started.storage.glob(f"**/{uploads}/*")], cannot)


def on_directory(layout: str, folder: Path) -> Kind:
    store = LocalStore(LocalSettings("directory", folder / "storage"), events=Events(), clock=SystemClock())
    kind = Kind(LAYOUTS[layout](store, events=Events()), list)
    kind.uploads = lambda: [f"{kind.origin} {path}" for path in folder.glob("storage/.replicator/tmp/*/*")]
    return kind


async def on_s3(layout: str, endpoint: str) -> Kind:
    """Below a prefix of its own. What an unfinished upload leaves in a bucket is a matter of the store's own tests."""
    if endpoint not in with_bucket:  # boto takes half a second for this
        async with raw_client(endpoint) as client:
            await client.create_bucket(Bucket="conformance")
        with_bucket.add(endpoint)
    bucket = settings(endpoint, "conformance", prefix=f"some/{uuid.uuid4().hex}")
    store = S3Store(bucket, events=Events(), clock=SystemClock())
    return Kind(LAYOUTS[layout](store, events=Events()), list)


async def all_tags(repository: Repository) -> list[str]:
    return [tag async for page in repository.tags() for tag in page]


async def read(repository: Repository, digest: Digest, size: int, offset: int = 0) -> bytes:
    async with repository.blob(Descriptor("application/octet-stream", digest, size)).open(offset) as chunks:
        return b"".join([chunk async for chunk in chunks])


# --- reading ---


async def test_missing_repository_is_not_found(kind: Kind) -> None:
    if "missing repository" in kind.cannot:
        assert await all_tags(kind.repository) == []
    elif "tell missing from hidden" in kind.cannot:
        for asked in (all_tags(kind.repository), kind.repository.resolve("v1")):
            with pytest.raises((AuthFailed, Denied)):
                await asked
        return
    else:
        with pytest.raises(NotFound) as caught:
            await all_tags(kind.repository)
        assert kind.origin in str(caught.value)
    with pytest.raises(NotFound):
        await kind.repository.resolve("v1")


async def test_every_tag_is_listed_once(kind: Kind) -> None:
    built = image("a")
    await put_image(kind.repository, built, "v0")
    for number in range(1, 12):
        await kind.repository.write_manifest(built.manifest, f"v{number}")
    assert sorted(await all_tags(kind.repository)) == sorted(f"v{number}" for number in range(12))


async def test_tag_and_digest_lead_to_the_exact_bytes(kind: Kind) -> None:
    built = image("a")
    await put_image(kind.repository, built, "v1")
    for reference in ("v1", built.digest):
        descriptor = await kind.repository.resolve(reference)
        assert (descriptor.digest, descriptor.size) == (built.digest, len(built.manifest.body))
        assert descriptor.media_type == built.manifest.media_type
        manifest = await kind.repository.read_manifest(reference)
        assert manifest == built.manifest


async def test_unknown_references_are_not_found(kind: Kind) -> None:
    await put_image(kind.repository, image("a"), "v1")
    for reference in ("v2", digest_of(b"nothing")):
        with pytest.raises(NotFound):
            await kind.repository.resolve(reference)
        with pytest.raises(NotFound):
            await kind.repository.read_manifest(reference)


async def test_index_is_kept_with_its_children(kind: Kind) -> None:
    built = index([image("x", platform=AMD64), image("y", platform=ARM64)])
    await put_image(kind.repository, built, "v1")
    manifest = await kind.repository.read_manifest("v1")
    assert manifest == built.manifest
    for child in manifest.children:
        assert (await kind.repository.read_manifest(child.digest)).digest == child.digest


async def test_blob_is_read_from_any_offset(kind: Kind) -> None:
    await kind.repository.write_blob(BytesSource(BIG))
    digest = digest_of(BIG)
    assert await read(kind.repository, digest, len(BIG)) == BIG
    for offset in (1, 65_536, len(BIG) - 1):
        assert await read(kind.repository, digest, len(BIG), offset) == BIG[offset:]


async def test_missing_blob_is_not_found_and_blamed_on_the_reader(kind: Kind) -> None:
    await kind.repository.write_blob(BytesSource(b"something"))
    source = kind.repository.blob(Descriptor("application/octet-stream", digest_of(b"nothing"), 7))
    with pytest.raises(NotFound):
        async with source.open() as chunks:
            _ = [chunk async for chunk in chunks]
    assert isinstance(source.failure, NotFound)
    assert not await kind.repository.has_blob(digest_of(b"nothing"))


async def test_leaving_a_reading_early_is_no_failure(kind: Kind) -> None:
    await kind.repository.write_blob(BytesSource(BIG))
    source = kind.repository.blob(Descriptor("application/octet-stream", digest_of(BIG), len(BIG)))
    async with source.open() as chunks:
        assert BIG.startswith(await anext(chunks))
    assert source.failure is None
    assert await read(kind.repository, digest_of(BIG), len(BIG)) == BIG


# --- writing blobs ---


@pytest.mark.parametrize("data", [b"", b"x", BIG], ids=["empty", "one byte", "2 MiB"])
async def test_written_blob_is_there_and_only_there(kind: Kind, data: bytes) -> None:
    assert await kind.repository.write_blob(BytesSource(data)) == "copied"
    assert await kind.repository.has_blob(digest_of(data))
    assert await read(kind.repository, digest_of(data), len(data)) == data
    await kind.other().write_blob(BytesSource(b"another"))
    assert await kind.other().has_blob(digest_of(data)) is ("blobs apart" in kind.cannot)


async def test_writing_a_blob_again_is_no_failure(kind: Kind) -> None:
    assert await kind.repository.write_blob(BytesSource(b"data")) == "copied"
    assert await kind.repository.write_blob(BytesSource(b"data")) in {"copied", "present"}
    assert await kind.repository.has_blob(digest_of(b"data"))


@pytest.mark.parametrize("data", [b"wrong", BIG], ids=["small", "2 MiB"])
async def test_bytes_of_another_digest_never_become_visible(kind: Kind, data: bytes) -> None:
    wanted = digest_of(b"right")
    await kind.repository.write_blob(BytesSource(b"so that the repository is there"))
    kind.breaks_upload()
    # Whoever reads hashes; a site that gets the bytes nevertheless refuses them each in its own words.
    with pytest.raises(SiteError):
        await kind.repository.write_blob(BytesSource(data, digest=wanted))
    assert not await kind.repository.has_blob(wanted)
    assert not await kind.repository.has_blob(digest_of(data))


@pytest.mark.parametrize("size", [len(BIG) - 1, len(BIG) + 1], ids=["too many", "too few"])
async def test_bytes_of_another_number_neither_hang_nor_pass(kind: Kind, size: int) -> None:
    await kind.repository.write_blob(BytesSource(b"so that the repository is there"))
    kind.breaks_upload()
    with pytest.raises(Corrupt):
        await kind.repository.write_blob(BytesSource(BIG, size=size))
    assert not await kind.repository.has_blob(digest_of(BIG))


async def test_failure_of_the_source_is_raised_as_its_own(kind: Kind) -> None:
    await kind.repository.write_blob(BytesSource(b"so that the repository is there"))
    broken = Unavailable("elsewhere", "read blob", "reset")
    source = BytesSource(BIG, breaks=broken, breaks_at=len(BIG) // 2)
    kind.breaks_upload()
    with pytest.raises(SiteError) as caught:
        await kind.repository.write_blob(source)
    assert caught.value.site == "elsewhere"
    assert not await kind.repository.has_blob(digest_of(BIG))


async def test_blob_is_mounted_without_being_read(kind: Kind) -> None:
    await kind.repository.write_blob(BytesSource(BIG))
    source = BytesSource(BIG)
    if "mount" in kind.cannot:
        assert await kind.other().write_blob(source, origin=kind.origin) == "copied"
        return
    assert await kind.other().write_blob(source, origin=kind.origin) == "mounted"
    assert source.opened == []
    assert await read(kind.other(), digest_of(BIG), len(BIG)) == BIG


async def test_refused_mount_becomes_an_upload(kind: Kind) -> None:
    await kind.repository.write_blob(BytesSource(b"so that the repository is there"))
    assert await kind.other().write_blob(BytesSource(BIG), origin=kind.origin) == "copied"
    assert await kind.other().has_blob(digest_of(BIG))


# --- writing manifests ---


async def test_manifest_is_stored_by_digest_and_by_tag(kind: Kind) -> None:
    built = image("a")
    await put_image(kind.repository, built)
    assert (await kind.repository.resolve(built.digest)).digest == built.digest
    assert await kind.repository.write_manifest(built.manifest, "v1") in {built.digest, None}
    assert await kind.repository.write_manifest(built.manifest) in {built.digest, None}
    assert await all_tags(kind.repository) == ["v1"]


async def test_tag_moves(kind: Kind) -> None:
    for built in (image("a"), image("b")):
        await put_image(kind.repository, built, "v1")
        assert (await kind.repository.resolve("v1")).digest == built.digest


async def test_missing_blobs_are_a_missing_reference(kind: Kind) -> None:
    built = image("a")
    await kind.repository.write_blob(BytesSource(built.blobs[built.manifest.blobs[0].digest]))
    with pytest.raises(MissingReference) as caught:
        await kind.repository.write_manifest(built.manifest, "v1")
    assert set(caught.value.digests) <= {blob.digest for blob in built.manifest.blobs[1:]}
    with pytest.raises(NotFound):
        await kind.repository.resolve("v1")


async def test_missing_children_are_a_missing_reference(kind: Kind) -> None:
    child = image("x")
    built = index([child])
    await kind.repository.write_blob(BytesSource(b"so that the repository is there"))
    if "missing children" in kind.cannot:
        await kind.repository.write_manifest(built.manifest, "v1")
        return
    with pytest.raises(MissingReference):
        await kind.repository.write_manifest(built.manifest, "v1")


# --- what not every site can do ---


async def test_referrers_are_listed_or_unsupported(kind: Kind) -> None:
    built = image("a")
    signature = image("signature", subject=built.manifest.descriptor)
    await put_image(kind.repository, built, "v1")
    await put_image(kind.repository, signature)
    if "referrers" in kind.cannot:
        with pytest.raises(Unsupported):
            await kind.repository.referrers(built.digest)
        return
    assert [one.digest for one in await kind.repository.referrers(built.digest)] == [signature.digest]
    assert list(await kind.repository.referrers(signature.digest)) == []


async def test_one_tag_is_deleted_or_that_is_unsupported(kind: Kind) -> None:
    built = image("a")
    await put_image(kind.repository, built, "v1")
    await kind.repository.write_manifest(built.manifest, "v2")
    if "delete_tag" in kind.cannot:
        with pytest.raises(Unsupported):
            await kind.repository.delete_tag("v1")
        assert sorted(await all_tags(kind.repository)) == ["v1", "v2"]
        return
    await kind.repository.delete_tag("v1")
    assert await all_tags(kind.repository) == ["v2"]
    assert (await kind.repository.resolve("v2")).digest == built.digest


async def test_repositories_are_listed(kind: Kind) -> None:
    await put_image(kind.repository, image("a"), "v1")
    await put_image(kind.other(), image("a"), "v1")
    if "catalog" in kind.cannot:
        with pytest.raises(Unsupported):
            _ = [page async for page in kind.site.repositories()]
        return
    listed = [name async for page in kind.site.repositories() for name in page]
    assert {kind.repository.name, kind.other().name} <= set(listed)
    assert len(listed) == len(set(listed))
