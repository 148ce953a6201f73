"""Input that no registry should give, nor any person: a clear error for that item, and the rest goes on."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.typedefs import Middleware

from replicator.demo.images import BuiltImage, image, load
from replicator.demo.registry import MAX_MANIFEST_BYTES
from replicator.model.descriptor import Descriptor
from replicator.model.digest import digest_of
from replicator.model.manifest import Kind, Manifest
from replicator.model.mediatypes import DOCKER_LIST, OCI_INDEX, OCI_MANIFEST
from tests.acceptance.program import Ended, Program, rule
from tests.fakes import faults
from tests.fakes.content import large_manifest, nested_index, sparse_index, unknown_type
from tests.fakes.habits import answers, page_size
from tests.fakes.registry import Exchange, FakeRegistry
from tests.fakes.watched import WatchedStore

GOOD = image("good")


@dataclass
class World:
    """A hub with one good image, a destination that believes everything, and the program between them."""

    program: Program
    hub: FakeRegistry
    fra: FakeRegistry

    def put(self, name: str, built: BuiltImage) -> None:
        """Puts an image into the hub, below `platform`, as `v1`."""
        load(self.hub.store, f"platform/{name}", "v1", built)

    async def sync(self) -> tuple[Ended, dict[str, dict[str, str]]]:
        """One run, and its failures by repository below `platform`."""
        ended = await self.program("sync", "--json")
        failures = [one for each in ended.json["rules"][0]["destinations"] for one in each["failures"]]
        for one in failures:
            # The log has a line for each, and it says all that there is to say.
            words = {one["site"], one["operation"], one["cause"], one["repository"] or ""}
            assert any(all(word in line for word in words) for line in ended.stderr.splitlines()), one
        return ended, {(one["repository"] or "").removeprefix("platform/"): one for one in failures}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    hub_store = WatchedStore(refuses_dangling=False)
    async with FakeRegistry(store=hub_store) as hub, FakeRegistry() as fra:
        dangling = fra.store.watch_dangling()
        program = Program(tmp_path)
        program.write_config({"hub": hub.url, "fra": fra.url}, rule())
        made = World(program, hub, fra)
        made.put("good", GOOD)
        yield made
        assert dangling == []


def raw(body: bytes, media_type: str = OCI_MANIFEST) -> BuiltImage:
    """Bytes that a registry serves as a manifest."""
    described = Descriptor(media_type, digest_of(body), len(body))
    return BuiltImage(Manifest(described, body, Kind.UNKNOWN), {})


def changed(media_type: str = OCI_MANIFEST, **fields: Any) -> BuiltImage:
    """A manifest that is right but for these fields."""
    return raw(json.dumps({**json.loads(image("changed").manifest.body), **fields}).encode(), media_type)


def children(count: int) -> BuiltImage:
    """An index of so many images that are nowhere."""
    entries = [
        {"mediaType": OCI_MANIFEST, "digest": digest_of(str(number).encode()), "size": 500}
        for number in range(count)
    ]
    body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    return raw(json.dumps(body).encode(), OCI_INDEX)


def nested(depth: int) -> BuiltImage:
    """An index of an index of an index ..."""
    built = nested_index("deep")
    for _ in range(depth):
        entry = {"mediaType": OCI_INDEX, "digest": built.digest, "size": len(built.manifest.body)}
        outer = raw(
            json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}).encode(), OCI_INDEX
        )
        built = BuiltImage(outer.manifest, {}, (built,))
    return built


LAYER = {"mediaType": "application/vnd.oci.image.layer.v1.tar", "size": 5}
BAD: Mapping[str, tuple[BuiltImage, str]] = {
    "too-large": (changed(annotations={"padding": "x" * (9 << 20)}), "longer than the 8388608 bytes allowed"),
    "empty": (raw(b""), "not valid JSON"),
    "no-json": (raw(b"<html>hello</html>"), "received a web page"),
    "no-object": (raw(b"[]"), "not an object"),
    "bottomless": (raw(b"[" * 100_000), "nested too deep"),
    "no-text": (raw(b'{"mediaType": "\xff\xfe"}'), "not UTF-8"),
    "unknown-type": (unknown_type("odd"), "application/vnd.example.thing.v1+json"),
    "other-type": (changed(mediaType=DOCKER_LIST), "its members are those of an image"),
    "other-case": (changed(Layers=[]), "which some clients read as 'layers'"),
    "maintenance": (raw(b'{"status":"maintenance"}', "application/json"), "not a manifest"),
    "no-version": (changed(schemaVersion=None), "schemaVersion is missing, not 2"),
    "index-and-image": (changed(manifests=[]), "an index and an image at once"),
    "twice": (raw(image("changed").manifest.body[:-1] + b',"layers":[]}'), "'layers' twice"),
    "no-size": (changed(layers=[LAYER | {"digest": digest_of(b""), "size": None}]), "no size"),
    "401-digits": (
        changed(layers=[LAYER | {"digest": digest_of(b"x"), "size": 10**400}]),
        "a number of 401 digits",
    ),
    "two-sizes": (
        changed(layers=[LAYER | {"digest": digest_of(b"x"), "size": size} for size in (1, 2)]),
        "two sizes",
    ),
    "no-list": (changed(layers="none"), "not a list"),
    "no-digest": (changed(layers=[LAYER | {"digest": "sha256:short"}]), "sha256:short"),
    "path-digest": (changed(layers=[LAYER | {"digest": "sha256:../../../etc/passwd"}]), "passwd"),
    "negative": (changed(layers=[LAYER | {"digest": digest_of(b""), "size": -1}]), "impossible size: -1"),
    "huge-size": (changed(layers=[LAYER | {"digest": digest_of(b"x"), "size": 10**40}]), ""),
    "missing-child": (sparse_index("sparse"), "404"),
    "10000-children": (children(10_000), "404"),
    "too-deep": (nested(6), "more than 4 levels"),
}


async def test_image_that_cannot_be_is_a_failure_that_says_why_and_the_rest_is_copied(world: World) -> None:
    for name, (built, _) in BAD.items():
        world.put(name, built)
    ended, failures = await world.sync()
    assert (ended.code, ended.json["outcome"]) == (1, "partial")
    assert failures.keys() == BAD.keys()
    for name, (_, why) in BAD.items():
        assert failures[name]["site"] == "hub", name
        assert why in failures[name]["cause"], name
        assert len(failures[name]["cause"]) < 1_000, name
    assert world.fra.store.content("platform/good").tags == {"v1": GOOD.digest}
    assert {name for name, content in world.fra.store.repositories.items() if content.tags} == {
        "platform/good"
    }


async def test_manifest_too_large_for_the_destination_alone_is_its_failure(world: World) -> None:
    world.put("large", large_manifest("large", MAX_MANIFEST_BYTES + 1))
    ended, failures = await world.sync()
    assert ended.code == 1
    assert failures["large"]["site"] == "fra"
    assert "413" in failures["large"]["cause"]
    assert world.fra.store.content("platform/good").tags == {"v1": GOOD.digest}


async def test_index_of_a_thousand_missing_children_ends_soon(world: World) -> None:
    world.put("many", children(1_000))
    ended, failures = await world.sync()
    assert ended.code == 1
    assert "404" in failures["many"]["cause"]
    assert world.hub.count("GET", "/platform/many/manifests/") < 20


async def test_catalog_that_repeats_is_a_failure_and_not_an_endless_run(world: World) -> None:
    async with FakeRegistry(page_size(1, link="same"), store=world.hub.store) as hub:
        world.put("second", image("second"))
        world.program.write_config({"hub": hub.url, "fra": world.fra.url}, rule())
        ended, failures = await world.sync()
        assert ended.code == 1
        assert (failures[""]["site"], failures[""]["operation"]) == ("hub", "list repositories")
        assert "the listing repeats" in failures[""]["cause"]
        assert hub.count("GET", "_catalog") < 5


async def test_tag_list_that_repeats_is_a_failure_of_that_repository(world: World) -> None:
    world.put("odd", image("odd"))
    link = '</v2/platform/odd/tags/list?last=v1>; rel="next"'
    world.hub.fault("GET", "/platform/odd/tags/list", faults.header("Link", link), times=None)
    ended, failures = await world.sync()
    assert ended.code == 1
    assert failures.keys() == {"odd"}
    assert failures["odd"]["operation"] == "list tags"
    assert world.fra.store.content("platform/good").tags == {"v1": GOOD.digest}


ODD_TAGS: list[object] = [
    "../../etc/passwd",
    "a b",
    "",
    "-v1",
    ".v1",
    "v1\n",
    "v1?x=1",
    "v1/../v2",
    "\u00e9",
    "\x00",
    "x" * 129,
    None,
    7,
    {},
]


async def test_tags_that_are_no_names_are_left_out_with_a_warning(world: World) -> None:
    body = json.dumps({"name": "platform/good", "tags": [*ODD_TAGS, "v1"]})
    headers = {"X-Content-Type-Options": "nosniff"}
    world.hub.fault("GET", "/platform/good/tags/list", faults.answer(200, body, headers), times=None)
    ended, failures = await world.sync()
    assert (ended.code, failures) == (0, {})
    assert world.fra.store.content("platform/good").tags == {"v1": GOOD.digest}
    assert f"{len(ODD_TAGS)} skipped, invalid names" in ended.stderr
    assert "\x00" not in ended.stderr
    asked = world.hub.find("GET|HEAD", "/platform/good/manifests/")
    assert {entry.path.rpartition("/")[2] for entry in asked} <= {"v1", GOOD.digest}


NO_LISTS = {
    "nothing": b"",
    "list": b"[]",
    "null": b"null",
    "number": b"7",
    "number of tags": b'{"tags": 7}',
    "errors": b'{"errors": []}',
    "page": b"<html>",
    "no UTF-8": b'{"tags": ["\xff"]}',
    "bottomless": b'{"tags": ' + b"[" * 100_000,
}


@pytest.mark.parametrize("body", NO_LISTS.values(), ids=NO_LISTS)
async def test_tag_list_that_is_none_is_a_failure_of_that_repository_and_no_empty_list(
    world: World, body: bytes
) -> None:
    async def act(_: Exchange) -> web.StreamResponse:
        return web.Response(body=body, content_type="application/json")

    world.put("odd", image("odd"))
    world.hub.fault("GET", "/platform/odd/tags/list", act, times=None)
    ended, failures = await world.sync()
    assert ended.code == 1
    assert failures.keys() == {"odd"}
    assert failures["odd"]["operation"] == "list tags"
    assert any(words in failures["odd"]["cause"] for words in ("is not a listing", "expected a listing"))
    assert world.fra.store.content("platform/good").tags == {"v1": GOOD.digest}


NO_REGISTRY: Mapping[str, Middleware] = {
    "404 to everything": answers(lambda _: True, 404),
    "404 on /v2/ alone": answers(lambda request: request.path == "/v2/", 404),
    "a page to everything": answers(lambda _: True, 200, html=True),
    "a page as JSON": answers(lambda _: True, 200),
}


@pytest.mark.parametrize("kind", NO_REGISTRY)
@pytest.mark.parametrize("side", ["source", "destination"])
async def test_site_that_is_no_registry_fails_by_name_and_the_other_rule_is_done(
    world: World, kind: str, side: str
) -> None:
    async with FakeRegistry(NO_REGISTRY[kind]) as web:
        other = (
            rule("other").replace("hub", "web") if side == "source" else rule("other", destinations=["web"])
        )
        sites = {"hub": world.hub.url, "fra": world.fra.url, "web": web.url}
        world.program.write_config(sites, rule() + other)
        ended = await world.program("sync", "--json")
    assert ended.code == 1
    first, second = ended.json["rules"]
    assert [each["outcome"] for each in first["destinations"]] == ["ok"]
    [destination] = second["destinations"]
    assert destination["outcome"] == "failed"
    assert {failure["site"] for failure in destination["failures"]} == {"web"}
    for failure in destination["failures"]:
        assert failure["operation"]
        assert any(
            word in failure["cause"]
            for word in ("not a registry", "not a listing", "expected a listing", "no catalog")
        ), failure
    assert world.fra.store.content("platform/good").tags == {"v1": GOOD.digest}


REFERENCES = {
    "host.example/UPPER:v1": "repository: invalid repository name 'UPPER'",
    "host.example/a//b": "repository: invalid repository name 'a//b'",
    "host.example/": "repository: invalid repository name ''",
    "host.example/a?x=1": "repository: invalid repository name 'a?x=1'",
    "host.example:abc/a": "host: invalid host name 'host.example:abc'",
    "host.example:99999/a": "host: 'host.example:99999' has a port",
    "[:::::]:5000/a": "host: ",
    "host.example/a:two words": "tag: invalid tag 'two words'",
    "host.example/a:": "tag: invalid tag ''",
    f"host.example/a:{'x' * 129}": "tag: ",
    "host.example/a@sha256:short": "digest: invalid digest 'sha256:short'",
    "host.example/a@": "digest: invalid digest ''",
    "https://host.example/a": "without https://",
    "": "an empty reference",
}


@pytest.mark.parametrize("reference", REFERENCES)
async def test_reference_that_is_none_names_the_part_that_is_wrong(tmp_path: Path, reference: str) -> None:
    ended = await Program(tmp_path)("copy", reference, "host.example/x")
    assert (ended.code, ended.stdout) == (2, "")
    assert REFERENCES[reference] in ended.stderr
    assert "SOURCE" in ended.stderr


async def test_destination_that_is_none_is_called_that(tmp_path: Path) -> None:
    ended = await Program(tmp_path)("copy", "host.example/x", "host.example/x:two words")
    assert (ended.code, ended.stdout) == (2, "")
    assert "DESTINATION" in ended.stderr
    assert "tag: invalid tag 'two words'" in ended.stderr
