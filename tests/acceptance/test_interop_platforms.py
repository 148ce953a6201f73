"""Chosen platforms at real registries, pulled by crane, regctl, skopeo and podman (`make interop`)."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from replicator.demo.images import AMD64, ARM64, image, index
from tests.acceptance.program import Program, rule
from tests.acceptance.walker import fill
from tests.cross.witness import podman_pull, run_quietly
from tests.fakes.distribution import Server, distribution
from tests.fakes.interop import distribution3, olareg, zot
from tests.fakes.process import clean_environment, require

pytestmark = pytest.mark.interop

BOTH = index([image("amd64", platform=AMD64), image("arm64", platform=ARM64)])
RULE = rule().replace('"platform/**"', '"platform/app"') + '\nplatforms = ["linux/amd64"]\n'

ALLOWING = partial(
    distribution, program="registry", validation={"manifests": {"indexes": {"platforms": "none"}}}
)
"""distribution 3, as docs/platforms.md says how it takes sparse indexes."""


def _crane(*words: str) -> str:
    return run_quietly("crane", *words).decode().strip()


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


@dataclass(frozen=True)
class Pair:
    """olareg with the image, and the registry that gets it."""

    program: Program
    source: Server
    target: Server

    @property
    def reference(self) -> str:
        """Where the image goes."""
        return f"{self.target.host}/platform/app"

    async def sync(self, mode: str) -> list[dict[str, str]]:
        """What a run does, with this `platform_mode`."""
        sites = {"hub": self.source.url, "fra": self.target.url}
        self.program.write_config(sites, f'{RULE}platform_mode = "{mode}"\n')
        ended = await self.program("sync", "--json")
        assert ended.code == 0, ended.stderr
        actions: list[dict[str, str]] = ended.json["rules"][0]["destinations"][0]["actions"]
        return actions

    async def is_refused(self) -> None:
        """The sparse index is held for what it lacks."""
        [held] = await self.sync("sparse")
        assert held["outcome"] == "held"
        assert "refuses indexes without linux/arm64" in held["reason"]


@asynccontextmanager
async def copying_to(
    serve: Callable[[Path], AbstractContextManager[Server]], folder: Path
) -> AsyncIterator[Pair]:
    """A source with the image, and an empty target in `folder/target`."""
    for name in ("source", "target"):
        (folder / name).mkdir()
    with olareg(folder / "source") as source, serve(folder / "target") as target:
        await fill(source.settings(), {("platform/app", "v1"): BOTH})
        yield Pair(Program(folder), source, target)


async def test_distribution_refuses_a_sparse_index_and_takes_a_rewritten_one(tmp_path: Path) -> None:
    async with copying_to(distribution3, tmp_path) as pair:
        await pair.is_refused()
        [copied] = await pair.sync("rewrite")
        assert copied["outcome"] == "copied"
        for name in (f"{pair.reference}:v1", f"{pair.reference}@{copied['digest']}"):
            assert _crane("digest", name) == copied["digest"]
            _pull(name, tmp_path)
        assert len(json.loads(_crane("manifest", f"{pair.reference}:v1"))["manifests"]) == 1
        assert await pair.sync("rewrite") == []


@pytest.mark.parametrize("serve", [ALLOWING, zot], ids=["distribution that allows it", "zot"])
async def test_who_takes_a_sparse_index_has_it_with_the_digest_of_the_source(
    tmp_path: Path, serve: Callable[[Path], AbstractContextManager[Server]]
) -> None:
    async with copying_to(serve, tmp_path) as pair:
        [copied] = await pair.sync("sparse")
        assert (copied["outcome"], copied["digest"]) == ("copied", BOTH.digest)
        for name in (f"{pair.reference}:v1", f"{pair.reference}@{BOTH.digest}"):
            _pull(name, tmp_path)
        assert await pair.sync("sparse") == []


async def test_garbage_collection_keeps_a_sparse_index_and_what_is_there_of_it(tmp_path: Path) -> None:
    async with copying_to(ALLOWING, tmp_path) as pair:
        [copied] = await pair.sync("sparse")
        assert copied["outcome"] == "copied"
        for options in ([], ["--delete-untagged"]):
            _collect(tmp_path / "target" / "config.yml", *options)
            _pull(f"{pair.reference}:v1", tmp_path)
        rechecked = await pair.program("sync", "--recheck", "--json")
        assert rechecked.json["rules"][0]["destinations"][0]["actions"] == []


async def test_olareg_refuses_a_sparse_index(tmp_path: Path) -> None:
    async with copying_to(olareg, tmp_path) as pair:
        await pair.is_refused()
