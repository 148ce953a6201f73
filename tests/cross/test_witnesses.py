"""skopeo and podman accept the images that the demo builds and our registry client writes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from replicator.demo.images import ARM64, BuiltImage, image, index, layer
from replicator.events import Events
from replicator.flow.clock import SystemClock
from replicator.sites.registry.site import RegistrySite
from tests.cross.witness import podman_pull, skopeo_copy_to_layout, skopeo_inspect, skopeo_raw
from tests.fakes.distribution import Server
from tests.fakes.layouts import put_image

SHARED = layer("shared", 70_000)
IMAGE = image("witness", [SHARED, layer("witness/own")])
INDEX = index([IMAGE, image("witness on arm", [SHARED], platform=ARM64)])


@pytest.fixture
async def written(docker_registry: Server) -> AsyncIterator[str]:
    """A repository on docker-registry, filled by our client: `v1` is an image, `multi` an index. Host and name."""
    site = RegistrySite(docker_registry.settings(), events=Events(), clock=SystemClock())
    try:
        repository = site.repository("witness/app")
        for tag, built in (("v1", IMAGE), ("multi", INDEX)):
            await put_image(repository, built, tag)
        yield f"{docker_registry.host}/witness/app"
    finally:
        await site.aclose()


@pytest.mark.parametrize(("tag", "built"), [("v1", IMAGE), ("multi", INDEX)])
def test_skopeo_reads_the_same_bytes(written: str, tag: str, built: BuiltImage) -> None:
    assert skopeo_raw(f"{written}:{tag}") == built.manifest.body
    said = skopeo_inspect(f"{written}:{tag}")
    assert said["Digest"] == built.digest
    assert said["Labels"] == {"seed": "witness"}


def test_skopeo_copies_every_platform(written: str, tmp_path: Path) -> None:
    skopeo_copy_to_layout(f"{written}:multi", tmp_path / "layout", "multi")
    entry = json.loads((tmp_path / "layout" / "index.json").read_bytes())["manifests"][0]
    assert entry["digest"] == INDEX.digest
    copied = {f"sha256:{path.name}" for path in (tmp_path / "layout" / "blobs" / "sha256").iterdir()}
    expected = {one.digest for one in INDEX.walk()} | {digest for one in INDEX.walk() for digest in one.blobs}
    assert copied == expected


def test_podman_pulls_it(written: str) -> None:
    config = IMAGE.manifest.config
    assert config is not None
    for tag in ("v1", "multi"):
        assert podman_pull(f"{written}:{tag}") == config.digest.partition(":")[2]
