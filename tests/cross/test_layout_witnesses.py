"""docker-registry, skopeo and podman read what we write to a directory, and we read what they write."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from replicator.demo.images import ARM64, BuiltImage, image, index, layer
from replicator.events import Events
from replicator.flow.clock import SystemClock
from replicator.sites.layouts.distribution.site import DistributionSite
from replicator.sites.layouts.oci.site import OciSite
from replicator.sites.objects.local.store import LocalStore
from replicator.sites.objects.s3.store import S3Store
from replicator.sites.objects.settings import LocalSettings
from replicator.sites.registry.site import RegistrySite
from tests.cross.witness import podman_pull, skopeo_copy_to_layout, skopeo_inspect, skopeo_raw
from tests.fakes import content
from tests.fakes.distribution import Server, distribution
from tests.fakes.layouts import digests, names, put_image
from tests.fakes.process import clean_environment, require
from tests.fakes.s3 import settings

SHARED = layer("shared", 70_000)
IMAGE = image("witness", [SHARED, layer("witness/own")])
INDEX = index([IMAGE, image("witness on arm", [SHARED], platform=ARM64)])
OCI_IMAGES = {"v1": IMAGE, "multi": INDEX}
IMAGES = OCI_IMAGES | {"docker": content.docker_image("d"), "list": content.docker_list(IMAGE)}
"""Docker's types in an OCI layout are left out of skopeo's tests: it knows no others than OCI's there."""

Open = Callable[[Path], LocalStore]


def run(*command: str) -> bytes:
    """What a program says."""
    done = subprocess.run(command, capture_output=True, check=False, timeout=60, env=clean_environment())
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def skopeo(*arguments: str) -> bytes:
    """What skopeo says."""
    return run(require("skopeo"), *arguments)


@pytest.fixture
async def opened() -> AsyncIterator[Open]:
    """Opens a directory as a store."""
    stores: list[LocalStore] = []

    def open_directory(path: Path) -> LocalStore:
        stores.append(LocalStore(LocalSettings("shelf", path), events=Events(), clock=SystemClock()))
        return stores[-1]

    yield open_directory
    for store in stores:
        await store.aclose()


@pytest.fixture
async def registry(own_docker_registry: Server) -> AsyncIterator[RegistrySite]:
    """Our client for a docker-registry of one's own."""
    site = RegistrySite(own_docker_registry.settings(), events=Events(), clock=SystemClock())
    yield site
    await site.aclose()


@pytest.fixture
async def written(opened: Open, own_docker_registry: Server) -> str:
    """A repository that we wrote into the directory of a running docker-registry. Host and name."""
    site = DistributionSite(opened(own_docker_registry.storage), events=Events())
    for tag, built in IMAGES.items():
        await put_image(site.repository("witness/app"), built, tag)
    return f"{own_docker_registry.host}/witness/app"


@pytest.mark.parametrize("tag", IMAGES)
def test_docker_registry_serves_what_we_wrote_at_once(written: str, tag: str) -> None:
    assert skopeo_raw(f"{written}:{tag}") == IMAGES[tag].manifest.body
    assert skopeo_inspect(f"{written}:{tag}")["Digest"] == IMAGES[tag].digest


def test_podman_pulls_and_skopeo_copies_it_whole(written: str, tmp_path: Path) -> None:
    config = IMAGE.manifest.config
    assert config is not None
    assert podman_pull(f"{written}:multi") == config.digest.partition(":")[2]
    skopeo_copy_to_layout(f"{written}:multi", tmp_path / "layout", "multi")


async def test_docker_registry_lists_our_repositories_and_tags(
    written: str, registry: RegistrySite, opened: Open, own_docker_registry: Server
) -> None:
    assert [name async for page in registry.repositories() for name in page] == ["witness/app"]
    assert await names(registry.repository("witness/app")) == sorted(IMAGES)
    site = DistributionSite(opened(own_docker_registry.storage), events=Events())
    await site.repository("witness/app").delete_tag("v1")
    assert await names(registry.repository("witness/app")) == sorted(IMAGES.keys() - {"v1"})


async def test_registry_mounts_and_tags_upon_what_we_wrote(written: str, registry: RegistrySite) -> None:
    other = registry.repository("witness/other")
    for blob in IMAGE.manifest.blobs:
        source = registry.repository("witness/app").blob(blob)
        assert await other.write_blob(source, origin="witness/app") == "mounted"
    await other.write_manifest(IMAGE.manifest, "v1")
    assert (await other.resolve("v1")).digest == IMAGE.digest


async def test_garbage_collection_keeps_what_we_wrote(
    written: str, opened: Open, own_docker_registry: Server
) -> None:
    config = own_docker_registry.storage.parent / "config.yml"
    store = opened(own_docker_registry.storage)
    before = {one.key async for page in store.list("") for one in page.objects}
    run(require("docker-registry"), "garbage-collect", str(config))
    assert {one.key async for page in store.list("") for one in page.objects} == before


async def test_we_read_what_docker_registry_wrote(
    registry: RegistrySite, opened: Open, own_docker_registry: Server
) -> None:
    for tag, built in IMAGES.items():
        await put_image(registry.repository("pushed/app"), built, tag)
    site = DistributionSite(opened(own_docker_registry.storage), events=Events())
    assert [name async for page in site.repositories() for name in page] == ["pushed/app"]
    ours = site.repository("pushed/app")
    assert await digests(ours) == {tag: built.digest for tag, built in IMAGES.items()}
    for tag, built in IMAGES.items():
        assert await ours.read_manifest(tag) == built.manifest
        for one in built.walk():
            for blob in one.manifest.blobs:
                assert await ours.has_blob(blob.digest)
                async with ours.blob(blob).open() as chunks:
                    assert b"".join([chunk async for chunk in chunks]) == one.blobs[blob.digest]


@pytest.mark.parametrize("tag", OCI_IMAGES)
async def test_skopeo_reads_our_layout_whole(opened: Open, tmp_path: Path, tag: str) -> None:
    site = OciSite(opened(tmp_path / "ours"), events=Events())
    for name, built in IMAGES.items():
        await put_image(site.repository("team/app"), built, name)
    reference = f"oci:{tmp_path}/ours/team/app:{tag}"
    assert skopeo("inspect", "--raw", reference) == IMAGES[tag].manifest.body
    skopeo("copy", "--all", "--preserve-digests", reference, f"dir:{tmp_path}/copy")


async def test_we_read_what_skopeo_wrote_and_skopeo_what_we_added(
    written: str, opened: Open, tmp_path: Path
) -> None:
    layout = tmp_path / "theirs" / "app"
    layout.parent.mkdir()
    for tag in ("v1", "multi"):
        skopeo_copy_to_layout(f"{written}:{tag}", layout, tag)
    site = OciSite(opened(tmp_path / "theirs"), events=Events())
    assert [name async for page in site.repositories() for name in page] == ["app"]
    ours = site.repository("app")
    assert await digests(ours) == {"v1": IMAGE.digest, "multi": INDEX.digest}
    assert await ours.read_manifest("multi") == INDEX.manifest
    other: BuiltImage = image("added")
    await put_image(ours, other, "v2")
    assert skopeo("inspect", "--raw", f"oci:{layout}:v2") == other.manifest.body
    assert skopeo("inspect", "--raw", f"oci:{layout}:multi") == INDEX.manifest.body
    skopeo_copy_to_layout(f"{written}:v1", layout, "v2")
    assert (await digests(ours))["v2"] == IMAGE.digest


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket, a registry on it, and our own site on it."""

    server: Server
    site: DistributionSite

    @property
    def repository(self) -> str:
        """Host and name."""
        return f"{self.server.host}/witness/app"


@pytest.fixture
async def bucket(s3_endpoint: str, s3_bucket: str, tmp_path: Path) -> AsyncIterator[Bucket]:
    """docker-registry on S3 below a prefix; it sends blobs itself instead of redirecting to the bucket."""
    folder = tmp_path / "registry"
    folder.mkdir()
    login = settings(s3_endpoint, s3_bucket, prefix="some/where")
    assert login.keys is not None
    driver = {
        "s3": {
            "region": "us-east-1",
            "regionendpoint": s3_endpoint,
            "bucket": s3_bucket,
            "accesskey": login.keys.access_key(),
            "secretkey": login.keys.secret_key(),
            "secure": False,
            "rootdirectory": "/some/where",
        },
        "redirect": {"disable": True},
    }
    site = DistributionSite(S3Store(login, events=Events(), clock=SystemClock()), events=Events())
    with distribution(folder, driver=driver) as server:
        yield Bucket(server, site)
        await site.aclose()


async def test_docker_registry_on_s3_serves_what_we_wrote(bucket: Bucket, tmp_path: Path) -> None:
    for tag, built in IMAGES.items():
        await put_image(bucket.site.repository("witness/app"), built, tag)
    for tag, built in IMAGES.items():
        assert skopeo_raw(f"{bucket.repository}:{tag}") == built.manifest.body
    config = IMAGE.manifest.config
    assert config is not None
    assert podman_pull(f"{bucket.repository}:multi") == config.digest.partition(":")[2]
    skopeo_copy_to_layout(f"{bucket.repository}:multi", tmp_path / "layout", "multi")


async def test_we_read_what_docker_registry_wrote_to_s3(bucket: Bucket) -> None:
    client = RegistrySite(bucket.server.settings(), events=Events(), clock=SystemClock())
    try:
        for tag, built in OCI_IMAGES.items():
            await put_image(client.repository("witness/app"), built, tag)
    finally:
        await client.aclose()
    ours = bucket.site.repository("witness/app")
    assert [name async for page in bucket.site.repositories() for name in page] == ["witness/app"]
    assert await digests(ours) == {tag: built.digest for tag, built in OCI_IMAGES.items()}
    for built in INDEX.walk():
        assert await ours.read_manifest(built.digest) == built.manifest
        for blob in built.manifest.blobs:
            async with ours.blob(blob).open() as chunks:
                assert b"".join([chunk async for chunk in chunks]) == built.blobs[blob.digest]
