"""Export, inventory and import, as a user runs them; and archives of other tools."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from replicator.demo.images import AMD64, ARM64, BuiltImage, image, index, layer, load
from replicator.model.digest import digest_of
from tests.acceptance.program import ROOT, Ended, Program
from tests.cross.witness import podman_pull
from tests.fakes.faults import refuse
from tests.fakes.process import clean_environment, require
from tests.fakes.registry import FakeRegistry

SHARED = layer("shared", 300_000)
SHARED_DIGEST = digest_of(SHARED.data)
APP = image("app", [SHARED, layer("app's own", 90_000)])
TOOL = image("tool", [SHARED, layer("tool's own", 70_000)])
MULTI = index([image("amd64", [SHARED], platform=AMD64), image("arm64", [SHARED], platform=ARM64)])
NEXT = image("next", [SHARED, layer("news", 100_000)])

RULE = """
[[rule]]
name = "all"
source = "hub"
destinations = ["shelf"]
repositories = ["platform/**"]
rename = { strip = "platform/", prefix = "mirror/" }
"""
TAGS = {"mirror/app": {"v1": APP.digest, "multi": MULTI.digest}, "mirror/tool": {"v1": TOOL.digest}}


@dataclass
class World:
    program: Program
    hub: FakeRegistry
    far: FakeRegistry

    @property
    def archive(self) -> Path:
        return self.program.folder / "out.tar"

    @property
    def far_host(self) -> str:
        return self.far.url.removeprefix("http://")

    async def export(self, *options: str) -> Ended:
        return await self.program("export", "--rule", "all", *options, "out.tar")

    async def import_(self, *options: str) -> Ended:
        return await self.program("import", "out.tar", "far", *options)

    def far_tags(self) -> dict[str, dict[str, str]]:
        store = self.far.store
        return {name: dict(content.tags) for name, content in store.repositories.items() if content.tags}

    def names(self) -> list[str]:
        with tarfile.open(self.archive) as tar:
            return tar.getnames()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with FakeRegistry() as hub, FakeRegistry() as far:
        load(hub.store, "platform/app", "v1", APP)
        load(hub.store, "platform/app", "multi", MULTI)
        load(hub.store, "platform/tool", "v1", TOOL)
        program = Program(tmp_path)
        program.write_config({"hub": hub.url, "far": far.url, "shelf": f"file://{tmp_path}/shelf"}, RULE)
        yield World(program, hub, far)


def blob_names(*built: BuiltImage) -> set[str]:
    return {f"blobs/sha256/{digest[7:]}" for one in built for each in one.walk() for digest in each.blobs}


def manifest_names(*built: BuiltImage) -> set[str]:
    return {f"blobs/sha256/{each.digest[7:]}" for one in built for each in one.walk()}


async def test_what_was_exported_arrives_whole_each_blob_once(world: World) -> None:
    exported = await world.export("--json")
    assert exported.code == 0, exported.stderr
    names = world.names()
    everything = blob_names(APP, MULTI, TOOL) | manifest_names(APP, MULTI, TOOL)
    assert sorted(names) == sorted({*everything, "oci-layout", "index.json"})
    assert names[-1] == "index.json"
    imported = await world.import_("--json")
    assert imported.code == 0, imported.stderr
    assert imported.json["totals"]["tags"]["copied"] == 3
    assert world.far_tags() == TAGS
    assert not world.far.store.dangling()
    again = await world.import_("--json")
    assert (again.code, again.json["totals"]["tags"]["unchanged"]) == (0, 3)


async def test_signatures_travel_and_count_as_no_images_of_their_own(world: World) -> None:
    signature = image("signature", 1, subject=APP.manifest.descriptor)
    countersignature = image("countersignature", 1, subject=signature.manifest.descriptor)
    for each in (signature, countersignature):
        load(world.hub.store, "platform/app", None, each)
    assert (await world.export()).code == 0
    imported = await world.import_("--json")
    assert imported.code == 0, imported.stderr
    assert imported.json["totals"]["tags"]["copied"] == 3
    for subject, referrer in ((APP, signature), (signature, countersignature)):
        found = world.far.store.referrers("mirror/app", subject.digest)
        assert [one.digest for one in found] == [referrer.digest]


def choose_platform(world: World, mode: str) -> None:
    sites = {"hub": world.hub.url, "far": world.far.url, "shelf": f"file://{world.program.folder}/shelf"}
    chosen = f'platforms = ["linux/amd64"]\nplatform_mode = "{mode}"\n'
    world.program.write_config(sites, RULE.replace('"platform/**"', '"platform/app"') + chosen)
    load(world.hub.store, "platform/app", "v1", MULTI)


async def test_rewritten_indexes_are_exported_and_imported_whole(world: World) -> None:
    choose_platform(world, "rewrite")
    exported = await world.export()
    assert exported.code == 0, exported.stderr
    imported = await world.import_()
    assert imported.code == 0, imported.stderr
    tags = world.far_tags()["mirror/app"]
    assert set(tags) == {"v1", "multi"}
    assert MULTI.digest not in tags.values()
    assert not world.far.store.dangling()


async def test_sparse_indexes_are_not_exported(world: World) -> None:
    choose_platform(world, "sparse")
    exported = await world.export()
    assert exported.code == 2
    assert '--rule all: its platform_mode "sparse" leaves indexes incomplete' in exported.stderr
    assert not world.archive.exists()


async def test_the_same_content_makes_the_same_archive(world: World) -> None:
    await world.export()
    first = sorted(world.names())
    size = world.archive.stat().st_size
    await world.export()
    assert (sorted(world.names()), world.archive.stat().st_size) == (first, size)
    assert [path.name for path in world.program.folder.glob("*out.tar*")] == ["out.tar"]


@pytest.mark.parametrize("kind", ["registry", "shelf"])
async def test_what_the_other_side_has_is_left_out_and_the_rest_arrives(world: World, kind: str) -> None:
    site = "far" if kind == "registry" else "shelf"
    await world.export()
    assert (await world.program("import", "out.tar", site)).code == 0
    inventory = await world.program("inventory", site)
    assert inventory.code == 0
    (world.program.folder / "have").write_text(inventory.stdout)
    load(world.hub.store, "platform/app", "v2", NEXT)
    load(world.hub.store, "platform/new", "v1", NEXT)  # a repository that has none of it yet
    exported = await world.export("--have", "have", "--json")
    assert exported.code == 0, exported.stderr
    assert blob_names(NEXT) & set(world.names()) == blob_names(NEXT) - blob_names(APP)
    assert not (blob_names(APP, TOOL) & set(world.names()))
    imported = await world.program("import", "out.tar", site, "--json")
    assert imported.code == 0, imported.stderr
    listed = await world.program("list", site, "mirror/new", "--digests", "--json")
    assert [tag["digest"] for tag in listed.json["tags"]] == [NEXT.digest]
    assert not world.far.store.dangling()


async def test_what_was_left_out_and_is_not_there_is_refused_before_anything_is_written(world: World) -> None:
    size = len(SHARED.data)
    (world.program.folder / "have").write_text(
        "# replicator inventory 1: DIGEST SIZE of each blob\n" + f"{SHARED_DIGEST} {size}\n"
    )
    assert (await world.export("--have", "have")).code == 0
    imported = await world.import_()
    assert imported.code == 1
    assert f"the archive leaves out 1 blob that far does not have: {SHARED_DIGEST};" in imported.stderr
    assert "export again without --have" in imported.stderr
    assert not world.far.store.repositories


async def test_what_was_left_out_is_what_a_new_directory_lacks(world: World) -> None:
    await world.export()
    assert (await world.import_()).code == 0
    (world.program.folder / "have").write_text((await world.program("inventory", "far")).stdout)
    await world.export("--have", "have")
    imported = await world.program("import", "out.tar", "shelf")
    assert imported.code == 1
    lacking = len(blob_names(APP, MULTI, TOOL))
    assert f"the archive leaves out {lacking} blobs that shelf does not have (list " in imported.stderr
    assert "export again without --have, or with a new inventory of shelf" in imported.stderr
    assert not (world.program.folder / "shelf").exists()


async def test_an_inventory_that_is_none_is_refused(world: World) -> None:
    (world.program.folder / "have").write_text("sha256:0\n")
    ended = await world.export("--have", "have")
    assert ended.code == 2
    assert "not an inventory" in ended.stderr
    assert not world.archive.exists()


async def test_it_goes_through_pipes_in_one_pass(world: World) -> None:
    command = [sys.executable, "-m", "replicator"]
    environ = {"PATH": os.environ["PATH"], "HOME": str(world.program.folder), "PYTHONPATH": str(ROOT)}
    reading, writing = os.pipe()
    exporting = await asyncio.create_subprocess_exec(
        *command, "export", "--rule", "all", "-",
        cwd=world.program.folder, env=environ, stdout=writing, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    os.close(writing)
    importing = await asyncio.create_subprocess_exec(
        *command, "import", "-", "far",
        cwd=world.program.folder, env=environ, stdin=reading, stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    os.close(reading)
    (_, told), (_, complaints) = await asyncio.gather(exporting.communicate(), importing.communicate())  # noqa: TID251
    assert (exporting.returncode, importing.returncode) == (0, 0), (told, complaints)
    assert b"ok: 3 tags copied" in told
    assert world.far_tags() == TAGS


@pytest.mark.parametrize("keep", [0, 1, 511, 512, 5000, -1024, -1025, -3000])
async def test_a_file_cut_short_is_refused_and_nothing_of_it_imported(world: World, keep: int) -> None:
    await world.export()
    data = world.archive.read_bytes()
    world.archive.write_bytes(data[:keep])
    imported = await world.import_()
    assert imported.code == 1
    assert re.search("cut short|missing|not a tar", imported.stderr)
    assert not world.far.store.repositories


async def test_an_altered_byte_is_refused_and_named(world: World) -> None:
    await world.export()
    with tarfile.open(world.archive) as tar:
        member = tar.getmember(f"blobs/sha256/{SHARED_DIGEST[7:]}")
    data = bytearray(world.archive.read_bytes())
    data[member.offset_data + 100] ^= 1
    world.archive.write_bytes(data)
    imported = await world.import_()
    assert imported.code == 1
    assert f"it is altered: the bytes of {SHARED_DIGEST} hash to" in imported.stderr
    assert not world.far.store.repositories


async def test_a_failing_tag_is_left_out_told_and_the_rest_exported(world: World) -> None:
    world.hub.store.content("platform/tool").blobs.clear()
    exported = await world.export("--json")
    assert exported.code == 1
    assert exported.json["outcome"] == "partial"
    assert (await world.import_()).code == 0
    assert world.far_tags() == {"mirror/app": TAGS["mirror/app"]}


async def test_nothing_is_left_of_an_export_that_failed(world: World) -> None:
    world.hub.fault("GET", "", refuse(403, "DENIED"), times=None)
    assert (await world.export()).code == 1
    assert not list(world.program.folder.glob("*out.tar*"))


async def test_an_unknown_rule_or_place_is_a_usage_error(world: World) -> None:
    unknown = await world.program("export", "--rule", "none", "out.tar")
    assert (unknown.code, "unknown rule; the config has all" in unknown.stderr) == (2, True)
    nowhere = await world.program("export", "--rule", "all", "nowhere/out.tar")
    assert (nowhere.code, "No such file or directory" in nowhere.stderr) == (2, True)
    absent = await world.program("import", "absent.tar", "far")
    assert (absent.code, "No such file or directory" in absent.stderr) == (2, True)


async def test_skopeo_reads_an_image_of_the_archive_by_its_name(world: World) -> None:
    await world.export()
    reference = f"oci-archive:{world.archive}:mirror/app:multi"
    assert await asyncio.to_thread(skopeo, "inspect", "--raw", reference) == MULTI.manifest.body
    target = f"dir:{world.program.folder}/copy"
    await asyncio.to_thread(skopeo, "copy", "--all", "--preserve-digests", reference, target)


@pytest.mark.parametrize(("name", "built"), [("app:v1", APP), ("app:multi", MULTI), ("tool:v1", TOOL)])
async def test_podman_pulls_an_image_of_the_archive_by_its_name(
    world: World, name: str, built: BuiltImage
) -> None:
    await world.export()
    pulled = await asyncio.to_thread(podman_pull, f"oci-archive:{world.archive}:mirror/{name}")
    config = next(built.walk()).manifest.config  # children first: of an index the one for amd64
    assert config is not None
    assert pulled == config.digest.partition(":")[2]


async def test_copy_reads_skopeos_archive_and_skopeo_reads_copys(world: World) -> None:
    source = f"docker://{world.hub.url.removeprefix('http://')}/platform/app:multi"
    target = f"oci-archive:{world.archive}:theirs"
    await asyncio.to_thread(skopeo, "copy", "--all", "--src-tls-verify=false", source, target)
    copied = await world.program("copy", "oci-archive:out.tar", f"{world.far_host}/in/app")
    assert copied.code == 0, copied.stderr
    assert world.far_tags() == {"in/app": {"theirs": MULTI.digest}}
    ours = world.program.folder / "ours.tar"
    written = await world.program("copy", f"{world.far_host}/in/app:theirs", "oci-archive:ours.tar:mine")
    assert written.code == 0, written.stderr
    assert (
        await asyncio.to_thread(skopeo, "inspect", "--raw", f"oci-archive:{ours}:mine") == MULTI.manifest.body
    )


async def test_copy_takes_one_image_of_many_by_its_name(world: World) -> None:
    await world.export()
    several = await world.program("copy", "oci-archive:out.tar", f"{world.far_host}/in/app")
    assert several.code == 1
    assert (
        "there are several images, specify one: mirror/app:multi, mirror/app:v1, mirror/tool:v1"
        in several.stderr
    )
    one = await world.program("copy", "oci-archive:out.tar:mirror/tool:v1", f"{world.far_host}/in/app")
    assert one.code == 0, one.stderr
    assert world.far_tags() == {"in/app": {"v1": TOOL.digest}}
    absent = await world.program("copy", "oci-archive:out.tar:nothing", f"{world.far_host}/in/app")
    assert (absent.code, "nothing not found; images: mirror/app:multi" in absent.stderr) == (1, True)


def skopeo(*arguments: str) -> bytes:
    """What skopeo says."""
    command = [require("skopeo"), *arguments]
    return subprocess.run(command, check=True, capture_output=True, env=clean_environment()).stdout


def docker_save(path: Path, built: BuiltImage, name: str) -> None:
    """What `docker save` writes since version 25: its own files beside an OCI layout."""
    blobs = {**built.blobs, built.digest: built.manifest.body}
    entry = {
        "mediaType": built.manifest.media_type,
        "digest": built.digest,
        "size": len(built.manifest.body),
        "annotations": {
            "io.containerd.image.name": f"docker.io/{name}",
            "org.opencontainers.image.ref.name": "v1",
        },
    }
    own = {
        "index.json": msgspec.json.encode({"schemaVersion": 2, "manifests": [entry]}),
        "manifest.json": msgspec.json.encode([{"Config": "x", "RepoTags": [name], "Layers": []}]),
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        "repositories": b"{}",
    }
    with tarfile.open(path, "w") as tar:
        for folder in ("blobs/", "blobs/sha256/"):
            info = tarfile.TarInfo(folder)
            info.type = tarfile.DIRTYPE
            tar.addfile(info)
        source = path.parent / "content"
        for file, data in (
            {f"blobs/sha256/{digest[7:]}": data for digest, data in blobs.items()} | own
        ).items():
            source.write_bytes(data)
            tar.add(source, file)


async def test_what_docker_saved_is_copied_and_imported_under_its_name(world: World) -> None:
    docker_save(world.archive, APP, "team/app:v1")
    copied = await world.program("copy", "oci-archive:out.tar", f"{world.far_host}/in/app")
    assert copied.code == 0, copied.stderr
    imported = await world.import_()
    assert imported.code == 0, imported.stderr
    assert world.far_tags() == {"in/app": {"v1": APP.digest}, "team/app": {"v1": APP.digest}}
