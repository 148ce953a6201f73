"""Rules and commands with buckets and directories at either end, as a user runs them."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from replicator.config.load import load as load_config
from replicator.demo.images import AMD64, ARM64, image, index, layer, load
from replicator.events import Events
from replicator.flow.clock import SystemClock
from replicator.model.digest import digest_of
from replicator.model.manifest import parse_manifest
from replicator.sites.layouts.oci.site import OciSite
from replicator.sites.objects.local.store import LocalStore
from replicator.sites.objects.settings import LocalSettings
from replicator.sites.open import open_site
from tests.acceptance.program import Ended, Program
from tests.acceptance.stores import ENVIRON, bucket, directory, everything
from tests.fakes.registry import FakeRegistry
from tests.fakes.s3 import Faulty, error, faulty, raw_client, reset
from tests.fakes.source import BytesSource

SHARED = layer("shared", 300_000)
APP = image("app", [SHARED, layer("app's own", 90_000)])
MULTI = index([image("amd64", [SHARED], platform=AMD64), image("arm64", [SHARED], platform=ARM64)])
TAGS = {"team/app": {"v1": APP.digest, "multi": MULTI.digest}, "tool": {"v1": APP.digest}}
MANIFEST_BYTES = len(APP.manifest.body) * 2 + sum(len(one.manifest.body) for one in MULTI.walk())


@dataclass
class World:
    program: Program
    hub: FakeRegistry
    endpoint: str
    bucket: str

    @property
    def folder(self) -> Path:
        return self.program.folder

    def config(self, *tables: str) -> None:
        self.program.write_config({"hub": self.hub.url}, "".join(tables))

    def store(self, name: str) -> str:
        """A site's table, by the name that says its kind."""
        kind, _, layout = name.partition("-")
        if kind == "dir":
            return directory(name, self.folder / name, layout)
        return bucket(name, self.endpoint, f"s3://{self.bucket}/{name}", layout)

    async def __call__(self, *arguments: str) -> Ended:
        return await self.program(*arguments, environ=ENVIRON)

    async def tags(self, site: str) -> Mapping[str, Mapping[str, str]]:
        """What a site of the config has."""
        settings = load_config(self.folder / "replicator.toml", ENVIRON | {"HOME": str(self.folder)}).sites[
            site
        ]
        opened = open_site(settings, events=Events(), clock=SystemClock())
        try:
            names = [name async for page in opened.repositories() for name in page]
            found = {}
            for name in names:
                repository = opened.repository(name)
                tags = [tag async for page in repository.tags() for tag in page]
                found[name] = {tag: (await repository.resolve(tag)).digest for tag in tags}
            return found
        finally:
            await opened.aclose()


LAYOUTS = ("oci", "distribution")
STORES = ["dir-oci", "dir-distribution", "s3-oci", "s3-distribution"]


@pytest.fixture
async def world(tmp_path: Path, s3_endpoint: str, s3_bucket: str) -> AsyncIterator[World]:
    async with FakeRegistry() as hub:
        load(hub.store, "team/app", "v1", APP)
        load(hub.store, "team/app", "multi", MULTI)
        load(hub.store, "tool", "v1", APP)
        yield World(Program(tmp_path), hub, s3_endpoint, s3_bucket)


def outcome(ended: Ended) -> Mapping[str, Any]:
    totals: Mapping[str, Any] = ended.json["totals"]
    return totals


async def test_one_rule_fills_every_kind_of_store_and_the_next_run_has_nothing_to_do(world: World) -> None:
    world.config(*map(world.store, STORES), everything("hub", *STORES))
    checked = await world("check", "--json")
    assert checked.code == 0, checked.stdout
    findings = {site["site"]: site["findings"] for site in checked.json["sites"]}
    assert findings["dir-oci"] == {"directory": "does not exist yet, will be created"}
    planned = await world("plan", "--exit-code")
    assert planned.code == 3, planned.stderr
    assert not list(world.folder.glob("dir-*"))
    synced = await world("sync", "--json")
    assert synced.code == 0, synced.stderr
    assert outcome(synced)["tags"]["copied"] == 3 * len(STORES)
    for site in STORES:
        assert await world.tags(site) == TAGS
    assert (await world("check")).code == 0
    again = await world("sync", "--json")
    assert (again.code, outcome(again)["tags"]["unchanged"]) == (0, 3 * len(STORES))
    assert (await world("plan", "--exit-code")).code == 0
    rechecked = await world("sync", "--recheck", "--json")
    assert (rechecked.code, outcome(rechecked)["bytes"]["written"]) == (0, 0)


@pytest.mark.parametrize("store", STORES)
async def test_a_store_is_a_source_like_any_other(world: World, store: str) -> None:
    async with FakeRegistry() as far:
        target = f'[site.far]\nurl = "{far.url}"\n'
        world.config(
            world.store(store),
            target,
            everything("hub", store, name="in"),
            everything(store, "far", name="out"),
        )
        assert (await world("sync", "--rule", "in")).code == 0
        synced = await world("sync", "--rule", "out", "--json")
        assert synced.code == 0, synced.stderr
        found = {name: dict(content.tags) for name, content in far.store.repositories.items() if content.tags}
        assert found == TAGS
        assert not far.store.dangling()
        assert (await world("sync", "--rule", "out", "--json")).json["totals"]["tags"]["unchanged"] == 3


@pytest.mark.parametrize("near", STORES)
async def test_between_sites_of_one_store_no_blob_passes_through(world: World, near: str) -> None:
    kind = near.partition("-")[0]
    if kind == "dir":
        fars = [directory(layout, world.folder / f"far-{layout}", layout) for layout in LAYOUTS]
    else:
        fars = [
            bucket(layout, world.endpoint, f"s3://{world.bucket}/far-{layout}", layout) for layout in LAYOUTS
        ]
    rules = [everything("hub", near, name="in"), everything(near, *LAYOUTS, name="out")]
    world.config(world.store(near), *fars, *rules)
    assert (await world("sync", "--rule", "in")).code == 0
    metrics = world.folder / "metrics.prom"
    synced = await world("sync", "--rule", "out", "--json", "--metrics-file", str(metrics))
    assert synced.code == 0, synced.stderr
    for destination in synced.json["rules"][0]["destinations"]:
        moved = destination["totals"]["bytes"]
        assert moved["written"] == MANIFEST_BYTES
        assert moved["read"] <= MANIFEST_BYTES
        assert moved["saved"] >= len(SHARED.data)
        site = destination["destination"]
        assert await world.tags(site) == TAGS
        saved = rf'replicator_bytes_saved_total{{destination="{site}",reason="server_side"}} (\S+)'
        found = re.search(saved, metrics.read_text())
        assert found is not None
        assert float(found[1]) >= len(SHARED.data)


async def test_a_second_repository_of_a_directory_takes_no_second_room(world: World) -> None:
    world.config(world.store("dir-oci"), everything("hub", "dir-oci"))
    assert (await world("sync")).code == 0
    name = digest_of(SHARED.data).replace(":", "/")
    first, second = (world.folder / "dir-oci" / each / "blobs" / name for each in ("team/app", "tool"))
    assert first.samefile(second)


async def test_what_a_registry_could_not_serve_is_held_before_anything_of_it_is_written(world: World) -> None:
    odd = LocalStore(LocalSettings("odd", world.folder / "odd"), events=Events(), clock=SystemClock())
    site = OciSite(odd, events=Events())
    data, config = b"layer" * 50_000, b"{}"
    for content, digest in ((data, digest_of(data, "sha512")), (config, digest_of(config))):
        await site.repository("team/odd").write_blob(BytesSource(content, digest=digest))
    body = msgspec.json.encode(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/json", "digest": digest_of(config), "size": 2},
            "layers": [{"mediaType": "x/y", "digest": digest_of(data, "sha512"), "size": len(data)}],
        }
    )
    await site.repository("team/odd").write_manifest(parse_manifest(body, ""), "v1")
    await site.aclose()
    world.config(
        directory("odd", world.folder / "odd"),
        world.store("dir-distribution"),
        everything("odd", "dir-distribution"),
    )
    synced = await world("sync", "--json")
    assert synced.code == 0, synced.stderr
    assert outcome(synced)["tags"]["held"] == 1
    [action] = synced.json["rules"][0]["destinations"][0]["actions"]
    assert "is not a sha256 digest" in action["reason"]
    assert not (world.folder / "dir-distribution").exists()


@pytest.mark.parametrize("store", ["dir-oci", "dir-distribution"])
async def test_a_blob_cut_short_on_disk_is_written_again(world: World, store: str) -> None:
    world.config(world.store(store), everything("hub", store))
    assert (await world("sync")).code == 0
    encoded = digest_of(SHARED.data)[7:]
    files = [
        path
        for path in (world.folder / store).rglob("*")
        if encoded in str(path) and path.name != "link" and path.is_file()
    ]
    for path in files:
        if path.stat().st_size == len(SHARED.data):
            os.truncate(path, 1000)
    load(world.hub.store, "team/app", "v2", image("new", [SHARED]))
    synced = await world("sync", "--json")
    assert synced.code == 0, synced.stderr
    [whole] = {path.read_bytes() for path in files if "team/app" in str(path) or path.name == "data"}
    assert whole == SHARED.data


async def test_copy_and_list_name_places_without_a_config(world: World) -> None:
    host = world.hub.url.removeprefix("http://")
    environ = {
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_ENDPOINT_URL": world.endpoint,
        "AWS_REGION": "us-east-1",
    }
    root = f"file://{world.folder}/shelf"
    bucket_root = f"s3://{world.bucket}/some/prefix"
    steps = [
        (f"{host}/team/app:v1", f"{root}//team/app"),
        (f"{root}//team/app:v1", f"{bucket_root}//moved/app"),
        (f"{bucket_root}//moved/app:v1", "oci:layout:mine"),
        ("oci:layout", f"s3://{world.bucket}/plain/app"),
        ("oci:layout:mine", f"{host}/back/app:v9"),
    ]
    for source, destination in steps:
        copied = await world.program("copy", source, destination, environ=environ)
        assert copied.code == 0, copied.stderr
    assert world.hub.store.content("back/app").tags == {"v9": APP.digest}
    assert (world.folder / "shelf/team/app/index.json").exists()
    listed = await world.program("list", bucket_root, environ=environ)
    assert (listed.code, listed.stdout) == (0, "moved/app\n")
    listed = await world.program("list", root, "team/app", environ=environ)
    assert (listed.code, listed.stdout) == (0, "v1\n")
    listed = await world.program("list", "oci:layout", "image", environ=environ)
    assert (listed.code, listed.stdout) == (0, "mine\n")
    keys = await keys_of(world, "docker/registry/v2/repositories/")
    assert any("/plain/app/_manifests/tags/mine/" in key for key in keys)


async def test_layouts_are_what_lies_there_or_what_is_told(world: World) -> None:
    host = world.hub.url.removeprefix("http://")
    target = f"file://{world.folder}/disk//team/app"
    told = await world.program("copy", f"{host}/team/app:v1", target, "--destination-layout", "distribution")
    assert told.code == 0, told.stderr
    found = await world.program("copy", f"{host}/team/app:multi", target)
    assert found.code == 0, found.stderr
    listed = await world.program("list", f"file://{world.folder}/disk", "team/app")
    assert listed.stdout.split() == ["multi", "v1"]
    misplaced = await world.program("copy", f"{host}/team/app", target, "--source-layout", "oci")
    assert (misplaced.code, "--source-layout applies only to s3:// and file://" in misplaced.stderr) == (
        2,
        True,
    )


async def keys_of(world: World, prefix: str) -> list[str]:
    async with raw_client(world.endpoint) as client:
        reply = await client.list_objects_v2(Bucket=world.bucket, Prefix=prefix)
        return [found["Key"] for found in reply.get("Contents", ())]


# --- faults ---


@pytest.fixture
async def proxy(s3_endpoint: str) -> AsyncIterator[Faulty]:
    async with faulty(s3_endpoint) as running:
        yield running


async def test_moments_of_a_bad_store_are_survived(world: World, proxy: Faulty) -> None:
    proxy.on("PUT", "", error(500, "InternalError"), times=2)
    proxy.on("GET", "", error(503, "SlowDown"), times=2)
    proxy.on("PUT", "blobs", reset, times=1)
    world.config(bucket("near", proxy.endpoint, f"s3://{world.bucket}"), everything("hub", "near"))
    synced = await world("sync", "--json")
    assert synced.code == 0, synced.stderr
    assert outcome(synced)["retries"] >= 3
    assert await world.tags("near") == TAGS


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        (403, "AccessDenied", "AccessDenied"),
        (400, "ExpiredToken", "ExpiredToken"),
        (403, "InvalidAccessKeyId", "InvalidAccessKeyId"),
    ],
)
async def test_what_the_store_refuses_is_named(
    world: World, proxy: Faulty, status: int, code: str, told: str
) -> None:
    for method in ("GET", "PUT", "HEAD", "POST"):
        proxy.on(method, "", error(status, code, "a sentence"), times=10_000)
    world.config(bucket("near", proxy.endpoint, f"s3://{world.bucket}"), everything("hub", "near"))
    synced = await world("sync", "--json")
    assert synced.code == 1
    failures = synced.json["rules"][0]["destinations"][0]["failures"]
    assert any(told in failure["cause"] and failure["site"] == "near" for failure in failures), failures
    checked = await world("check")
    assert (checked.code, told in checked.stdout) == (1, True)
    assert "AKIAEXAMPLE" not in synced.stderr + synced.stdout


async def test_a_missing_bucket_is_named(world: World) -> None:
    world.config(bucket("near", world.endpoint, "s3://no-such-bucket-here"), everything("hub", "near"))
    synced = await world("sync", "--json")
    assert synced.code == 1
    causes = [each["cause"] for each in synced.json["rules"][0]["destinations"][0]["failures"]]
    assert any("bucket" in cause for cause in causes), causes
    assert (await world("check")).code == 1


async def test_a_full_disk_fails_what_needs_it_and_leaves_nothing_behind(world: World) -> None:
    small = image("small", [layer("small", 1000)])
    load(world.hub.store, "small", "v1", small)
    world.config(world.store("dir-distribution"), everything("hub", "dir-distribution"))
    limited = ("sh", "-c", 'ulimit -f 500; exec "$@"', "sh")  # 250 kB, of 512 bytes each
    ended = await world.program("sync", "--json", prefix=limited)
    assert ended.code == 1
    causes = [each["cause"] for each in ended.json["rules"][0]["destinations"][0]["failures"]]
    assert any("a file of this size is not allowed here" in cause for cause in causes), causes
    assert (await world.tags("dir-distribution"))["small"] == {"v1": small.digest}
    sizes = [path.stat().st_size for path in (world.folder / "dir-distribution").rglob("*") if path.is_file()]
    assert max(sizes) < len(SHARED.data)
    assert (await world("sync")).code == 0
    assert (await world.tags("dir-distribution")) == TAGS | {"small": {"v1": small.digest}}


# --- listing is the diff ---


def objects(count: int) -> Mapping[str, bytes]:
    """A registry's storage with so many tags of one image."""
    base = "docker/registry/v2"
    repository = f"{base}/repositories/team/app"
    blobs = {**APP.blobs, APP.digest: APP.manifest.body}
    found = {f"{base}/blobs/sha256/{one[7:9]}/{one[7:]}/data": data for one, data in blobs.items()}
    found |= {f"{repository}/_layers/sha256/{one[7:]}/link": one.encode() for one in APP.blobs}
    links = [f"tags/t{number}/current/link" for number in range(count)]
    links.append(f"revisions/sha256/{APP.digest[7:]}/link")
    return found | {f"{repository}/_manifests/{link}": APP.digest.encode() for link in links}


def seed_layout(folder: Path, count: int) -> None:
    """The same as an OCI layout."""
    (folder / "blobs/sha256").mkdir(parents=True)
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    for digest, data in {**APP.blobs, APP.digest: APP.manifest.body}.items():
        (folder / "blobs/sha256" / digest[7:]).write_bytes(data)
    entry = {"mediaType": APP.manifest.media_type, "digest": APP.digest, "size": len(APP.manifest.body)}
    names = [{"org.opencontainers.image.ref.name": f"t{number}"} for number in range(count)]
    entries = [{**entry, "annotations": name} for name in names]
    (folder / "index.json").write_bytes(msgspec.json.encode({"schemaVersion": 2, "manifests": entries}))


async def test_nothing_to_do_on_10000_tags_of_a_directory_costs_its_listing(world: World) -> None:
    for key, data in objects(10_000).items():
        path = world.folder / "dir-distribution" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    seed_layout(world.folder / "dir-oci/team/app", 10_000)
    rule = everything("dir-distribution", "dir-oci")
    world.config(world.store("dir-distribution"), world.store("dir-oci"), rule)
    first = await world("sync", "--json")
    assert (first.code, outcome(first)["tags"]["unchanged"]) == (0, 10_000), first.stderr
    assert outcome(first)["requests"] >= 10_000
    again = await world("sync", "--json")
    assert (again.code, outcome(again)["tags"]["unchanged"]) == (0, 10_000)
    assert outcome(again)["requests"] <= 40
    assert outcome(again)["bytes"] == {"read": 0, "written": 0, "saved": 0}


@pytest.mark.parametrize(
    "count", [1_100, pytest.param(10_000, marks=[pytest.mark.soak, pytest.mark.timeout(900)])]
)
async def test_nothing_to_do_on_tags_of_a_bucket_costs_list_requests_only(
    world: World, proxy: Faulty, count: int
) -> None:
    async with raw_client(world.endpoint) as client:
        for key, data in objects(count).items():
            await client.put_object(Bucket=world.bucket, Key=key, Body=data)
    seed_layout(world.folder / "dir-oci/team/app", count)
    near = bucket("near", proxy.endpoint, f"s3://{world.bucket}")
    world.config(near, world.store("dir-oci"), everything("near", "dir-oci"))
    first = await world("sync", "--json")
    assert (first.code, outcome(first)["tags"]["unchanged"]) == (0, count), first.stderr
    assert proxy.count("GET", "current/link") == count
    proxy.seen.clear()
    again = await world("sync", "--json")
    assert (again.code, outcome(again)["tags"]["unchanged"]) == (0, count)
    assert proxy.seen
    assert all(method == "GET" and "list-type=2" in path for method, path in proxy.seen), proxy.seen
    assert len(proxy.seen) <= count / 1000 + 12


@pytest.mark.parametrize("layout", LAYOUTS)
async def test_directory_that_is_not_mounted_is_neither_filled_nor_taken_for_empty(
    world: World, layout: str
) -> None:
    near, far = world.store(f"dir-{layout}"), world.store("s3-oci")
    rules = everything("hub", f"dir-{layout}") + everything(f"dir-{layout}", "s3-oci", name="onward")
    world.config(near, far, rules)
    for rule in ("all", "onward"):
        assert (await world("sync", "--rule", rule)).code == 0
    mounted, mount_point = world.folder / "elsewhere", world.folder / f"dir-{layout}"
    mount_point.rename(mounted)
    mount_point.mkdir()
    world.hub.requests.clear()
    for arguments in (
        [],
        ["--rule", "all"],
    ):  # the second run finds in the state that the first one could not ask
        ended = await world("sync", "--json", *arguments)
        assert ended.code == 1, ended.stderr
        assert "is its file system mounted?" in ended.stdout
        assert list(mount_point.iterdir()) == []
        assert await world.tags("s3-oci") == TAGS
    mount_point.rmdir()
    mounted.rename(mount_point)
    assert (await world("sync")).code == 0
    mount_point.rename(mounted)
    world.config(near + "must_exist = false\n", far, rules)
    assert (await world("sync", "--rule", "all")).code == 0
    assert await world.tags(f"dir-{layout}") == TAGS
