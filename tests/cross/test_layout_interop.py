"""oras and crane read the OCI layouts that we write (`make interop`)."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from replicator.demo.images import AMD64, ARM64, image, index, layer
from replicator.events import Events
from replicator.flow.clock import SystemClock
from replicator.sites.layouts.oci.site import OciSite
from replicator.sites.objects.local.store import LocalStore
from replicator.sites.objects.settings import LocalSettings
from tests.acceptance.walker import walk
from tests.fakes.content import docker_image
from tests.fakes.distribution import Server
from tests.fakes.layouts import put_image
from tests.fakes.process import clean_environment, require

pytestmark = pytest.mark.interop

SHARED = layer("shared", 70_000)
IMAGE = image("witness", [SHARED, layer("witness/own")], platform=AMD64)
INDEX = index([IMAGE, image("witness on arm", [SHARED], platform=ARM64)])
IMAGES = {"v1": IMAGE, "multi": INDEX, "docker": docker_image("d")}


def run(*command: str) -> bytes:
    """What a program says."""
    done = subprocess.run(command, capture_output=True, check=False, timeout=60, env=clean_environment())
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.fixture
async def layout(tmp_path: Path) -> AsyncIterator[Path]:
    """A repository's folder, with all images."""
    store = LocalStore(LocalSettings("ours", tmp_path / "ours"), events=Events(), clock=SystemClock())
    for tag, built in IMAGES.items():
        await put_image(OciSite(store, events=Events()).repository("team/app"), built, tag)
    yield tmp_path / "ours" / "team" / "app"
    await store.aclose()


def test_oras_lists_our_tags_and_gets_the_exact_manifests(layout: Path) -> None:
    oras = require("oras")
    assert run(oras, "repo", "tags", "--oci-layout", str(layout)).decode().split() == sorted(IMAGES)
    for tag, built in IMAGES.items():
        assert run(oras, "manifest", "fetch", "--oci-layout", f"{layout}:{tag}") == built.manifest.body


@pytest.mark.parametrize("tag", IMAGES)
def test_oras_copies_an_image_whole(layout: Path, own_docker_registry: Server, tag: str) -> None:
    target = f"{own_docker_registry.host}/there:{tag}"
    run(require("oras"), "cp", "--from-oci-layout", f"{layout}:{tag}", "--to-plain-http", target)
    assert walk(own_docker_registry.url) == {("there", tag): IMAGES[tag].digest}


def test_crane_finds_everything_of_the_layout(layout: Path, own_docker_registry: Server) -> None:
    """Crane knows no tags in a layout: it pushes all that the layout leads to as one index."""
    run(require("crane"), "push", "--index", str(layout), f"{own_docker_registry.host}/there:all")
    assert set(walk(own_docker_registry.url)) == {("there", "all")}
    for built in IMAGES.values():
        found = run(require("crane"), "manifest", f"{own_docker_registry.host}/there@{built.digest}")
        assert found == built.manifest.body
