"""The program against registries that come through Go, as source and as destination (`make interop`)."""

from __future__ import annotations

from pathlib import Path

import pytest

from replicator.demo.images import AMD64, ARM64, BuiltImage, image, index, layer
from tests.acceptance.program import Program, rule
from tests.acceptance.walker import Images, expected, fill, walk
from tests.cross.witness import skopeo_raw
from tests.fakes.content import docker_image, docker_list
from tests.fakes.distribution import Server
from tests.fakes.interop import crane, distribution3, olareg, zot

pytestmark = pytest.mark.interop

OTHERS = {"distribution3": distribution3, "olareg": olareg, "zot": zot, "crane": crane}
LAYER_BYTES = 300_000
SHARED = layer("interop/shared", LAYER_BYTES)


def _images() -> Images:
    images: dict[tuple[str, str], BuiltImage] = {}
    for name in ("app", "web"):
        one = image(name, [SHARED, layer(name)], platform=AMD64)
        images[f"platform/{name}", "v1"] = one
        images[f"platform/{name}", "multi"] = index([one, image(f"{name} on arm", [SHARED], platform=ARM64)])
        images[f"platform/{name}", "docker"] = docker_image(name)
        images[f"platform/{name}", "list"] = docker_list(docker_image(name))
    return images


IMAGES = _images()


def held_by(other: str) -> Images:
    """Zot takes no manifests of docker's own types."""
    return {at: built for at, built in IMAGES.items() if other != "zot" or at[1] in {"v1", "multi"}}


# By name, as olareg has no catalog.
RULE = rule().replace('"platform/**"', '"platform/app", "platform/web"')


async def step(program: Program, source: Server, target: Server, images: Images) -> None:
    """One run that copies all, and one that has nothing to do."""
    tags = ", ".join(sorted({f'"{tag}"' for _, tag in images}))
    program.write_config(
        {"hub": source.url, "fra": target.url}, f"{RULE}\n[[rule.tags]]\ninclude = [{tags}]\n"
    )
    ended = await program("sync", "--json")
    assert ended.code == 0, ended.stderr
    assert ended.json["totals"]["tags"]["copied"] == len(images)
    # The large layer went over once, though all images of both repositories have it; small ones are not asked for.
    # crane's registry mounts nothing, but what one of its repositories has the others have, too.
    assert LAYER_BYTES < ended.json["totals"]["bytes"]["written"] < 2 * LAYER_BYTES
    again = await program("sync", "--json")
    assert again.json["totals"]["tags"]["unchanged"] == len(images)
    assert again.json["totals"]["bytes"]["written"] == 0


@pytest.mark.parametrize("other", OTHERS)
async def test_from_docker_registry_and_back_all_is_the_same(
    other: str, docker_registry: Server, own_docker_registry: Server, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    images = held_by(other)
    await fill(docker_registry.settings(), images)
    with OTHERS[other](tmp_path / "other") as server:
        for name, source, target in (
            ("there", docker_registry, server),
            ("back", server, own_docker_registry),
        ):
            (tmp_path / name).mkdir()
            await step(Program(tmp_path / name), source, target, images)
            for (repository, tag), built in images.items():
                assert skopeo_raw(f"{target.host}/{repository}:{tag}") == built.manifest.body
    assert walk(own_docker_registry.url) == expected(images)


@pytest.mark.parametrize("other", OTHERS)
async def test_copy_to_and_from(other: str, own_docker_registry: Server, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    images = held_by(other)
    await fill(own_docker_registry.settings(), images)
    program = Program(tmp_path)
    with OTHERS[other](tmp_path / "other") as server:
        there, back = f"{server.host}/copied/app", f"{own_docker_registry.host}/back/app"
        for source, target in ((f"{own_docker_registry.host}/platform/app", there), (there, back)):
            ended = await program("copy", "--all-tags", source, target)
            assert ended.code == 0, ended.stderr
    found = {
        tag: digest for (name, tag), digest in walk(own_docker_registry.url).items() if name == "back/app"
    }
    assert found == {tag: built.digest for (name, tag), built in images.items() if name == "platform/app"}
