"""Chosen platforms at real registries, pulled by crane, regctl, skopeo and podman (`make interop`)."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from replicator.demo.images import AMD64, ARM64, image, index
from tests.acceptance.program import Program, rule
from tests.acceptance.walker import fill
from tests.cross.witness import podman_pull, run_quietly
from tests.fakes.distribution import Server, distribution
from tests.fakes.interop import distribution3, olareg
from tests.fakes.process import clean_environment, require

pytestmark = pytest.mark.interop

BOTH = index([image("amd64", platform=AMD64), image("arm64", platform=ARM64)])
RULE = rule().replace('"platform/**"', '"platform/app"') + '\nplatforms = ["linux/amd64"]\n'


def _crane(*words: str) -> str:
    command = [require("crane"), *words]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=60, env=clean_environment()
    ).stdout.strip()


def _pull(name: str, folder: Path) -> None:
    """Each program gets the image of amd64, whole, by tag or digest."""
    child = BOTH.children[0]
    config = child.manifest.config
    assert config is not None
    assert _crane("digest", "--platform=linux/amd64", name) == child.digest
    _crane("pull", "--platform=linux/amd64", name, str(folder / "image.tar"))
    host = name.partition("/")[0]
    run_quietly("regctl", "registry", "set", "--tls=disabled", host, home=folder)
    told = run_quietly("regctl", "image", "digest", "--platform=linux/amd64", name, home=folder)
    assert told.decode().strip() == child.digest
    into = folder / "pulled"
    shutil.rmtree(into, ignore_errors=True)
    run_quietly(
        "skopeo", "copy", "--override-arch=amd64", "--src-tls-verify=false", f"docker://{name}", f"dir:{into}"
    )
    assert (into / "manifest.json").read_bytes() == child.manifest.body
    assert podman_pull(name) == config.digest.partition(":")[2]


def _collect(config: Path, *options: str) -> None:
    """Runs distribution's garbage collection beside the registry."""
    command = [require("registry"), "garbage-collect", *options, str(config)]
    environ = clean_environment() | {"OTEL_TRACES_EXPORTER": "none"}
    subprocess.run(command, check=True, capture_output=True, timeout=60, env=environ)


async def _sync(program: Program, source: Server, target: Server, mode: str) -> list[dict[str, str]]:
    program.write_config({"hub": source.url, "fra": target.url}, f'{RULE}platform_mode = "{mode}"\n')
    ended = await program("sync", "--json")
    assert ended.code == 0, ended.stderr
    actions: list[dict[str, str]] = ended.json["rules"][0]["destinations"][0]["actions"]
    return actions


async def test_distribution_refuses_a_sparse_index_and_takes_a_rewritten_one(tmp_path: Path) -> None:
    program = Program(tmp_path)
    folders = [tmp_path / name for name in ("source", "target")]
    for folder in folders:
        folder.mkdir()
    with olareg(folders[0]) as source, distribution3(folders[1]) as target:
        await fill(source.settings(), {("platform/app", "v1"): BOTH})
        [held] = await _sync(program, source, target, "sparse")
        assert held["outcome"] == "held"
        assert "refuses indexes without linux/arm64" in held["reason"]
        [copied] = await _sync(program, source, target, "rewrite")
        assert copied["outcome"] == "copied"
        reference = f"{target.host}/platform/app"
        for name in (f"{reference}:v1", f"{reference}@{copied['digest']}"):
            assert _crane("digest", name) == copied["digest"]
            _pull(name, tmp_path)
        assert len(json.loads(_crane("manifest", f"{reference}:v1"))["manifests"]) == 1
        assert await _sync(program, source, target, "rewrite") == []


async def test_distribution_that_allows_it_takes_a_sparse_index_with_the_digest_of_the_source(
    tmp_path: Path,
) -> None:
    program = Program(tmp_path)
    folders = [tmp_path / name for name in ("source", "target")]
    for folder in folders:
        folder.mkdir()
    allowed = {"manifests": {"indexes": {"platforms": "none"}}}
    with (
        olareg(folders[0]) as source,
        distribution(folders[1], program="registry", validation=allowed) as target,
    ):
        await fill(source.settings(), {("platform/app", "v1"): BOTH})
        [copied] = await _sync(program, source, target, "sparse")
        assert (copied["outcome"], copied["digest"]) == ("copied", BOTH.digest)
        reference = f"{target.host}/platform/app"
        for name in (f"{reference}:v1", f"{reference}@{BOTH.digest}"):
            _pull(name, tmp_path)
        assert await _sync(program, source, target, "sparse") == []


async def test_garbage_collection_keeps_a_sparse_index_and_what_is_there_of_it(tmp_path: Path) -> None:
    program = Program(tmp_path)
    folders = [tmp_path / name for name in ("source", "target")]
    for folder in folders:
        folder.mkdir()
    allowed = {"manifests": {"indexes": {"platforms": "none"}}}
    with (
        olareg(folders[0]) as source,
        distribution(folders[1], program="registry", validation=allowed) as target,
    ):
        await fill(source.settings(), {("platform/app", "v1"): BOTH})
        [copied] = await _sync(program, source, target, "sparse")
        assert copied["outcome"] == "copied"
        for options in ([], ["--delete-untagged"]):
            _collect(folders[1] / "config.yml", *options)
            _pull(f"{target.host}/platform/app:v1", tmp_path)
        rechecked = await program("sync", "--recheck", "--json")
        assert rechecked.json["rules"][0]["destinations"][0]["actions"] == []


async def test_olareg_refuses_a_sparse_index(tmp_path: Path) -> None:
    program = Program(tmp_path)
    folders = [tmp_path / name for name in ("source", "target")]
    for folder in folders:
        folder.mkdir()
    with olareg(folders[0]) as source, olareg(folders[1]) as target:
        await fill(source.settings(), {("platform/app", "v1"): BOTH})
        [held] = await _sync(program, source, target, "sparse")
        assert held["outcome"] == "held"
        assert "refuses indexes without linux/arm64" in held["reason"]
