"""The program and docker-registry on versitygw, an S3 server beside moto (`make interop`)."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from replicator.demo.images import AMD64, ARM64, image, index, layer
from tests.acceptance.program import Program
from tests.acceptance.stores import ENVIRON, bucket, everything
from tests.acceptance.walker import expected, fill, walk
from tests.cross.witness import podman_pull, skopeo_raw
from tests.fakes.distribution import Server, distribution
from tests.fakes.s3 import KEYS, raw_client

pytestmark = pytest.mark.interop

SHARED = layer("versitygw/shared", 300_000)
LARGE = layer("versitygw/large", 9 << 20)  # goes up in two parts
APP = image("app", [SHARED, LARGE], platform=AMD64)
IMAGES = {
    ("team/app", "v1"): APP,
    ("team/app", "multi"): index([APP, image("app on arm", [SHARED], platform=ARM64)]),
    ("tool", "v1"): image("tool", [SHARED]),
}


@pytest.fixture
async def name(versitygw_endpoint: str) -> str:
    """An empty bucket."""
    name = f"bucket-{secrets.token_hex(6)}"
    async with raw_client(versitygw_endpoint) as client:
        await client.create_bucket(Bucket=name)
    return name


async def step(program: Program, rule: str) -> None:
    """One run that copies all, and one that has nothing to do."""
    ended = await program("sync", "--rule", rule, "--json", environ=ENVIRON)
    assert ended.code == 0, ended.stderr
    assert ended.json["totals"]["tags"]["copied"] == len(IMAGES)
    again = await program("sync", "--rule", rule, "--recheck", "--json", environ=ENVIRON)
    assert again.code == 0, again.stderr
    assert again.json["totals"]["tags"]["unchanged"] == len(IMAGES)
    assert again.json["totals"]["bytes"]["written"] == 0


@pytest.mark.parametrize("layout", ["distribution", "oci"])
async def test_into_a_bucket_and_back_all_is_the_same(
    layout: str, versitygw_endpoint: str, name: str, own_docker_registry: Server, tmp_path: Path
) -> None:
    hub_folder = tmp_path / "hub"
    hub_folder.mkdir()
    program = Program(tmp_path)
    with distribution(hub_folder) as hub:
        await fill(hub.settings(), IMAGES)
        sites = {"hub": hub.url, "back": own_docker_registry.url}
        rules = everything("hub", "shelf", name="in") + everything("shelf", "back", name="out")
        shelf = bucket("shelf", versitygw_endpoint, f"s3://{name}/some/where", layout)
        program.write_config(sites, shelf + rules)
        await step(program, "in")
    await step(program, "out")
    assert walk(own_docker_registry.url) == expected(IMAGES)


async def test_docker_registry_on_the_bucket_serves_what_we_wrote(
    versitygw_endpoint: str, name: str, own_docker_registry: Server, tmp_path: Path
) -> None:
    await fill(own_docker_registry.settings(), IMAGES)
    program = Program(tmp_path)
    shelf = bucket("shelf", versitygw_endpoint, f"s3://{name}/some/where")
    program.write_config({"hub": own_docker_registry.url}, shelf + everything("hub", "shelf", name="in"))
    await step(program, "in")
    driver = {
        "s3": {
            "region": "us-east-1",
            "regionendpoint": versitygw_endpoint,
            "bucket": name,
            "accesskey": KEYS.access_key(),
            "secretkey": KEYS.secret_key(),
            "secure": False,
            "rootdirectory": "/some/where",
        },
        "redirect": {"disable": True},
    }
    folder = tmp_path / "served"
    folder.mkdir()
    config = APP.manifest.config
    assert config is not None
    with distribution(folder, driver=driver) as server:
        for (repository, tag), built in IMAGES.items():
            assert skopeo_raw(f"{server.host}/{repository}:{tag}") == built.manifest.body
        assert podman_pull(f"{server.host}/team/app:multi") == config.digest.partition(":")[2]
