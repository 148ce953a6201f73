"""skopeo, podman and crane pull from `serve`, and the distribution-spec's own conformance suite passes its reading half."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from replicator.demo.images import ARM64, image, index, layer
from replicator.events import Events
from replicator.flow.clock import SystemClock
from replicator.model.digest import digest_of
from replicator.sites.objects.local.store import LocalStore
from replicator.sites.objects.s3 import S3Store
from replicator.sites.objects.settings import LocalSettings
from tests.cross.witness import podman_pull, skopeo_copy_to_layout, skopeo_inspect, skopeo_raw
from tests.fakes import content
from tests.fakes.layouts import put_image
from tests.fakes.process import clean_environment, require, running
from tests.fakes.s3 import settings as bucket_settings
from tests.fakes.serving import layout_site

SHARED = layer("shared", 3_000_000)
IMAGE = image("witness", [SHARED, layer("witness/own")])
INDEX = index([IMAGE, image("witness on arm", [SHARED], platform=ARM64)])
IMAGES = {"v1": IMAGE, "multi": INDEX, "docker": content.docker_image("d")}
SIGNATURE = content.artifact("signature", IMAGE.manifest)
REPOSITORY = "witness/app"


@contextmanager
def serve(folder: Path, *arguments: str) -> Iterator[str]:
    """The program, serving; host and port."""
    command = [sys.executable, "-m", "replicator", *arguments, "--listen", "127.0.0.1:0"]
    root = str(Path(__file__).parents[2])
    with running(command, folder / "serve.log", PYTHONPATH=root, HOME=str(folder)) as process:
        yield process.wait_for(r"url=http://([0-9.:]+)")[1]


@pytest.fixture(params=["distribution", "oci"])
async def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A directory with images, in either layout."""
    store = LocalStore(LocalSettings("shelf", tmp_path / "shelf"), events=Events(), clock=SystemClock())
    repository = layout_site(request.param, store).repository(REPOSITORY)
    for tag, built in IMAGES.items():
        await put_image(repository, built, tag)
    await put_image(repository, SIGNATURE)
    await store.aclose()
    return tmp_path / "shelf"


@pytest.fixture
def host(shelf: Path, tmp_path: Path) -> Iterator[str]:
    """Where the directory is served."""
    with serve(tmp_path, "serve", str(shelf)) as host:
        yield host


def test_skopeo_and_podman_pull_from_a_directory(host: str, tmp_path: Path) -> None:
    for tag, built in IMAGES.items():
        assert skopeo_raw(f"{host}/{REPOSITORY}:{tag}") == built.manifest.body
        assert skopeo_raw(f"{host}/{REPOSITORY}@{built.digest}") == built.manifest.body
    said = skopeo_inspect(f"{host}/{REPOSITORY}:v1")
    assert said["Digest"] == IMAGE.digest
    assert said["RepoTags"] == sorted(IMAGES)
    skopeo_copy_to_layout(f"{host}/{REPOSITORY}:multi", tmp_path / "layout", "multi")
    config = IMAGE.manifest.config
    assert config is not None
    assert podman_pull(f"{host}/{REPOSITORY}:multi") == config.digest.partition(":")[2]


@pytest.mark.parametrize("layout", ["distribution", "oci"])
async def test_skopeo_pulls_from_a_bucket(
    s3_endpoint: str, s3_bucket: str, layout: str, tmp_path: Path
) -> None:
    store = S3Store(bucket_settings(s3_endpoint, s3_bucket), events=Events(), clock=SystemClock())
    for tag, built in IMAGES.items():
        await put_image(layout_site(layout, store).repository(REPOSITORY), built, tag)
    await store.aclose()
    config = tmp_path / "replicator.toml"
    write(
        config,
        f'[agent]\nstate = "sqlite:///{tmp_path}/state.db"\n[site.bucket]\nurl = "s3://{s3_bucket}"\n'
        f'endpoint = "{s3_endpoint}"\nregion = "us-east-1"\nlayout = "{layout}"\n'
        'access_key = "AKIAEXAMPLE"\nsecret_key = "secret"\n',
    )
    with serve(tmp_path, "serve", "bucket", "-c", str(config)) as host:
        await asyncio.to_thread(
            skopeo_copy_to_layout, f"{host}/{REPOSITORY}:multi", tmp_path / "layout", "multi"
        )
        said = await asyncio.to_thread(skopeo_inspect, f"{host}/{REPOSITORY}:v1")
    assert said["Digest"] == IMAGE.digest


def write(path: Path, text: str) -> None:
    path.write_text(text)


def crane(*arguments: str) -> str:
    """What crane says."""
    done = subprocess.run(
        [require("crane"), *arguments, "--insecure"],
        capture_output=True,
        check=False,
        timeout=60,
        env=clean_environment(),
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.interop
def test_crane_lists_and_pulls(host: str, tmp_path: Path) -> None:
    assert crane("catalog", host).split() == [REPOSITORY]
    assert crane("ls", f"{host}/{REPOSITORY}").split() == sorted(IMAGES)
    assert crane("digest", f"{host}/{REPOSITORY}:multi").strip() == INDEX.digest
    assert crane("validate", "--remote", f"{host}/{REPOSITORY}:v1")
    crane("pull", f"{host}/{REPOSITORY}:multi", str(tmp_path / "pulled"), "--format=oci")
    assert json.loads((tmp_path / "pulled" / "index.json").read_bytes())["manifests"]


@pytest.mark.interop
def test_oras_and_regctl_find_what_refers_to_an_image(host: str, tmp_path: Path) -> None:
    reference, kind = f"{host}/{REPOSITORY}@{IMAGE.digest}", SIGNATURE.manifest.descriptor.artifact_type or ""

    def run(program: str, *arguments: str) -> str:
        environ = clean_environment() | {"HOME": str(tmp_path)}
        done = subprocess.run(
            [require(program), *arguments],
            capture_output=True,
            check=False,
            timeout=60,
            env=environ,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("regctl", "registry", "set", "--tls", "disabled", host)
    for wanted, expected in ((kind, [SIGNATURE.digest]), ("application/vnd.example.other", [])):
        discover = ("discover", "--plain-http", "--format", "json", "--artifact-type", wanted)
        assert [
            one["digest"] for one in json.loads(run("oras", *discover, reference)).get("referrers") or []
        ] == expected
        listed = ("artifact", "list", "--filter-artifact-type", wanted, "--format", "{{json .Manifest}}")
        listing = json.loads(run("regctl", *listed, reference))
        assert [one["digest"] for one in listing.get("manifests") or []] == expected


@pytest.mark.interop
def test_conformance_suite_passes_its_reading_half(host: str, tmp_path: Path) -> None:
    """The suite cannot check the digest header of manifests that it did not push, so that is not asked for."""
    answer = conformance(
        tmp_path,
        OCI_REGISTRY=host,
        OCI_REPO1=REPOSITORY,
        OCI_RO_DATA_TAGS=" ".join(IMAGES),
        OCI_RO_DATA_MANIFESTS=" ".join(one.digest for built in IMAGES.values() for one in built.walk()),
        OCI_RO_DATA_BLOBS=" ".join(IMAGE.blobs),
        OCI_RO_DATA_REFERRERS=f"{IMAGE.digest} {digest_of(b'nobody')}",
    )
    # Its exit code is no use: it panics over the report of a read-only run, after the results are out.
    assert "OCI Conformance Result: Pass" in answer, answer
    for what in ("Tag listing", "Blob get", "Blob head", "Manifest get by digest", "Referrers", "Ping"):
        assert re.search(rf"^  {what}\.+: +Pass$", answer, re.MULTILINE), f"{what}\n{answer}"


def conformance(folder: Path, **settings: str) -> str:
    """What the suite prints."""
    fixed = {
        "OCI_TLS": "disabled",
        "OCI_VERSION": "1.1",
        "OCI_RESULTS_DIR": str(folder / "results"),
        "OCI_API_PUSH": "false",
        "OCI_API_BLOBS_DIGEST_HEADER": "true",
        **{f"OCI_API_{what}_DELETE": "false" for what in ("BLOBS", "MANIFESTS", "TAGS")},
    }
    done = subprocess.run(
        [require("oci-conformance")],
        capture_output=True,
        check=False,
        timeout=60,
        env=clean_environment() | fixed | settings,
        cwd=folder,
        text=True,
    )
    return done.stdout
