"""What `serve` answers, spoken to by a plain client: the reading half of the OCI distribution-spec, line by line."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from itertools import product
from pathlib import Path

import pytest
from yarl import URL

from replicator.demo.images import Layer, image, index, layer
from replicator.events import Events
from replicator.flow.clock import SystemClock
from replicator.model.digest import Digest, digest_of
from replicator.model.mediatypes import OCI_INDEX
from replicator.ports import ObjectStore
from replicator.serve import wire
from replicator.serve.content import SMALL_BYTES
from replicator.sites.objects.local.store import LocalStore
from replicator.sites.objects.settings import LocalSettings
from tests.fakes import content
from tests.fakes.layouts import put_image
from tests.fakes.objects import MemoryStore
from tests.fakes.serving import Served, layout_site, serving

BIG = layer("big", 600_000)
SMALL = layer("small", 300)
IMAGE = image("served", [BIG, SMALL])
INDEX = index([IMAGE, image("other", 1)])
IMAGES = {"v1": IMAGE, "multi": INDEX, "docker": content.docker_image("docker")}
SIGNATURE = content.artifact("signature", IMAGE.manifest, "application/vnd.example.signature")
SBOM = content.artifact("sbom", IMAGE.manifest, "application/vnd.example.sbom")
NOWHERE = digest_of(b"nowhere")
APP = "/v2/team/app"


@pytest.fixture(params=["directory", "memory"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ObjectStore]:
    """A store with files, and one without."""
    if request.param == "memory":
        yield MemoryStore()
        return
    local = LocalStore(LocalSettings("shelf", tmp_path / "shelf"), events=Events(), clock=SystemClock())
    yield local
    await local.aclose()


@pytest.fixture(params=["distribution", "oci"])
async def served(request: pytest.FixtureRequest, store: ObjectStore) -> AsyncIterator[Served]:
    site = layout_site(request.param, store)
    repository = site.repository("team/app")
    for tag, built in IMAGES.items():
        await put_image(repository, built, tag)
    for referrer in (SIGNATURE, SBOM):
        await put_image(repository, referrer)
    await put_image(site.repository("other"), image("another", 1), "latest")
    async with serving(site) as served:
        yield served
    assert served.reported == []


def _digest(one: Layer) -> Digest:
    return digest_of(one.data)


@pytest.mark.parametrize("path", ["/v2/", "/v2"])
async def test_ping_says_what_it_is(served: Served, path: str) -> None:
    reply = await served.get(path)
    assert reply.status == 200
    assert reply.headers["Docker-Distribution-Api-Version"] == "registry/2.0"


# --- manifests ---


@pytest.mark.parametrize("tag", IMAGES)
async def test_manifest_is_served_byte_for_byte(served: Served, tag: str) -> None:
    built = IMAGES[tag]
    for path in (f"{APP}/manifests/{tag}", f"{APP}/manifests/{built.digest}"):
        reply = await served.get(path)
        assert (reply.status, reply.body) == (200, built.manifest.body)
        assert reply.headers["Docker-Content-Digest"] == built.digest
        assert reply.headers["Content-Type"] == built.manifest.media_type
        head = await served.head(path)
        assert (head.status, head.body) == (200, b"")
        assert head.headers["Content-Length"] == str(len(built.manifest.body))
        assert head.headers["Docker-Content-Digest"] == built.digest


async def test_what_is_there_is_served_whatever_accept_says(served: Served) -> None:
    reply = await served.get(
        f"{APP}/manifests/v1", Accept="application/vnd.docker.distribution.manifest.v2+json"
    )
    assert (reply.status, reply.body) == (200, IMAGE.manifest.body)


@pytest.mark.parametrize("kind", ["manifest", "blob"])
async def test_known_content_is_not_sent_again(served: Served, kind: str) -> None:
    digest = IMAGE.digest if kind == "manifest" else _digest(BIG)
    path = f"{APP}/manifests/v1" if kind == "manifest" else f"{APP}/blobs/{digest}"
    forms = ['"{}"', "{}", 'W/"{}"', '"else", "{}"', "*"]
    for method, form in product(("GET", "HEAD"), forms):
        reply = await served.get(path, method, If_None_Match=form.format(digest))
        assert (reply.status, reply.body) == (304, b"")
        assert reply.headers["ETag"] == f'"{digest}"'
    assert (await served.get(path, If_None_Match=f'"{NOWHERE}"')).status == 200


async def test_manifest_that_is_none_is_refused_by_the_spec(served: Served) -> None:
    for reference, expected in {
        "missing": (404, "MANIFEST_UNKNOWN"),
        NOWHERE: (404, "MANIFEST_UNKNOWN"),
        _digest(SMALL): (404, "MANIFEST_UNKNOWN"),
        ".not-a-tag": (404, "MANIFEST_UNKNOWN"),
        "sha256:abc": (400, "DIGEST_INVALID"),
        "md5:0123456789abcdef": (400, "DIGEST_INVALID"),
    }.items():
        assert (await served.get(f"{APP}/manifests/{reference}")).code == expected
        head = await served.head(f"{APP}/manifests/{reference}")
        assert (head.status, head.body) == (expected[0], b"")


# --- blobs ---


@pytest.mark.parametrize("one", [BIG, SMALL], ids=["big", "small"])
async def test_blob_is_served_byte_for_byte(served: Served, one: Layer) -> None:
    assert len(BIG.data) > SMALL_BYTES > len(SMALL.data)
    path = f"{APP}/blobs/{_digest(one)}"
    for _ in range(2):
        reply = await served.get(path)
        assert (reply.status, reply.body) == (200, one.data)
        assert reply.headers["Docker-Content-Digest"] == _digest(one)
        assert reply.headers["Docker-Distribution-Api-Version"] == "registry/2.0"
    head = await served.head(path)
    assert (head.status, head.body) == (200, b"")
    assert head.headers["Content-Length"] == str(len(one.data))
    assert head.headers["Accept-Ranges"] == "bytes"


@pytest.mark.parametrize("one", [BIG, SMALL], ids=["big", "small"])
async def test_range_is_served(served: Served, one: Layer) -> None:
    path, size = f"{APP}/blobs/{_digest(one)}", len(one.data)
    ranges = {
        "0-0": (0, 1),
        "10-19": (10, 20),
        "100-": (100, size),
        "-7": (size - 7, size),
        "5-9999999": (5, size),
    }
    for header, (start, stop) in ranges.items():
        reply = await served.get(path, Range=f"bytes={header}")
        assert (reply.status, reply.body) == (206, one.data[start:stop])
        assert reply.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{size}"
        head = await served.head(path, Range=f"bytes={header}")
        assert head.headers["Content-Length"] == str(stop - start)


async def test_range_beyond_the_blob_is_refused_with_its_size(served: Served) -> None:
    for header in ("99999999-", "-0"):
        reply = await served.get(f"{APP}/blobs/{_digest(BIG)}", Range=f"bytes={header}")
        assert reply.code == (416, "RANGE_INVALID")
        assert reply.headers["Content-Range"] == f"bytes */{len(BIG.data)}"


async def test_range_that_is_not_understood_gets_the_whole(served: Served) -> None:
    for header in ("bytes=1-2,5-6", "bytes=9-3", "lines=1-2", "bytes=a-b", "bytes=-", "bytes"):
        reply = await served.get(f"{APP}/blobs/{_digest(SMALL)}", Range=header)
        assert (reply.status, reply.body) == (200, SMALL.data)


async def test_range_counts_only_for_the_content_that_if_range_names(served: Served) -> None:
    path, etag = f"{APP}/blobs/{_digest(SMALL)}", f'"{_digest(SMALL)}"'
    assert (await served.get(path, Range="bytes=1-2", If_Range=etag)).status == 206
    for other in (f'"{NOWHERE}"', f"W/{etag}", "Wed, 21 Oct 2015 07:28:00 GMT"):
        assert (await served.get(path, Range="bytes=1-2", If_Range=other)).body == SMALL.data


async def test_blob_that_is_not_in_the_repository_is_refused_by_the_spec(served: Served) -> None:
    for path, expected in {
        f"{APP}/blobs/{NOWHERE}": (404, "BLOB_UNKNOWN"),
        f"/v2/other/blobs/{_digest(BIG)}": (404, "BLOB_UNKNOWN"),
        f"/v2/missing/blobs/{_digest(BIG)}": (404, "BLOB_UNKNOWN"),
        f"{APP}/blobs/sha256:xyz": (400, "DIGEST_INVALID"),
        f"/v2/Team/App/blobs/{NOWHERE}": (400, "NAME_INVALID"),
    }.items():
        assert (await served.get(path)).code == expected


# --- listings ---


async def test_tags_are_listed_in_order(served: Served) -> None:
    reply = await served.get(f"{APP}/tags/list")
    assert reply.json == {"name": "team/app", "tags": ["docker", "multi", "v1"]}
    assert "Link" not in reply.headers


@pytest.mark.parametrize(
    ("path", "key", "expected"),
    [
        (f"{APP}/tags/list", "tags", ["docker", "multi", "v1"]),
        ("/v2/_catalog", "repositories", ["other", "team/app"]),
    ],
)
async def test_pages_follow_link_to_the_end(served: Served, path: str, key: str, expected: list[str]) -> None:
    for count in (1, 2, 3):
        found: list[str] = []
        following = f"{path}?n={count}"
        for _ in range(len(expected)):
            reply = await served.get(following)
            assert len(reply.json[key]) <= count
            found += reply.json[key]
            if "Link" not in reply.headers:
                break
            target, _, relation = reply.headers["Link"].partition(">; ")
            assert relation == 'rel="next"'
            following = target.removeprefix("<")
            assert URL(following).query["n"] == str(count)
        assert found == expected


async def test_pages_begin_after_last_also_where_that_is_no_tag(served: Served) -> None:
    assert (await served.get(f"{APP}/tags/list?last=e")).json["tags"] == ["multi", "v1"]
    assert (await served.get(f"{APP}/tags/list?last=v1")).json["tags"] == []
    reply = await served.get(f"{APP}/tags/list?n=0")
    assert (reply.status, reply.json["tags"]) == (200, [])
    assert (await served.get(f"{APP}/tags/list?n=99999999999999999999")).json["tags"] == [
        "docker",
        "multi",
        "v1",
    ]


@pytest.mark.parametrize("path", [f"{APP}/tags/list", "/v2/_catalog"])
async def test_page_of_no_number_is_refused(served: Served, path: str) -> None:
    for number in ("-1", "x", "1.5", "%C2%B2", ""):
        assert (await served.get(f"{path}?n={number}")).code == (400, "PAGINATION_NUMBER_INVALID")


async def test_tags_of_no_repository_are_refused(served: Served) -> None:
    assert (await served.get("/v2/missing/tags/list")).code == (404, "NAME_UNKNOWN")
    assert (await served.get("/v2/-bad-/tags/list")).code == (400, "NAME_INVALID")


async def test_new_tag_is_listed_and_served_at_once(served: Served) -> None:
    await served.get(f"{APP}/tags/list?n=1")
    await served.site.repository("team/app").write_manifest(IMAGE.manifest, "aaa")
    assert (await served.get(f"{APP}/tags/list")).json["tags"][0] == "aaa"
    await served.site.repository("team/app").write_manifest(INDEX.manifest, "aaa")
    assert (await served.get(f"{APP}/manifests/aaa")).body == INDEX.manifest.body


async def test_referrers_are_listed_and_filtered(served: Served) -> None:
    path = f"{APP}/referrers/{IMAGE.digest}"
    reply = await served.get(path)
    assert (reply.status, reply.headers["Content-Type"]) == (200, OCI_INDEX)
    assert "OCI-Filters-Applied" not in reply.headers
    assert reply.json["schemaVersion"] == 2
    assert reply.json["mediaType"] == OCI_INDEX
    assert {one["digest"] for one in reply.json["manifests"]} == {SIGNATURE.digest, SBOM.digest}
    reply = await served.get(f"{path}?artifactType=application/vnd.example.sbom")
    assert reply.headers["OCI-Filters-Applied"] == "artifactType"
    [only] = reply.json["manifests"]
    assert only["digest"] == SBOM.digest
    assert only["artifactType"] == "application/vnd.example.sbom"
    assert only["annotations"] == {"org.example.seed": "sbom"}


async def test_many_referrers_come_in_pages_that_keep_the_filter(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "MAX_REFERRERS_BYTES", 1)
    path: str | None = f"{APP}/referrers/{IMAGE.digest}"
    found, pages = [], 0
    while path is not None:
        reply = await served.get(path)
        found += [one["digest"] for one in reply.json["manifests"]]
        pages += 1
        link = reply.headers.get("Link")
        path = None if link is None else link.partition("<")[2].partition(">")[0]
    assert (found, pages) == (sorted([SIGNATURE.digest, SBOM.digest]), 2)
    reply = await served.get(f"{APP}/referrers/{IMAGE.digest}?artifactType=application/vnd.example.sbom")
    assert [one["digest"] for one in reply.json["manifests"]] == [SBOM.digest]
    assert "Link" not in reply.headers


async def test_no_referrers_are_an_empty_index_and_never_404(served: Served) -> None:
    for repository in ("team/app", "missing", "blobs/app"):
        reply = await served.get(f"/v2/{repository}/referrers/{NOWHERE}")
        assert (reply.status, reply.json["manifests"]) == (200, [])
    served.reported.clear()  # of the name that an OCI layout cannot have


async def test_referrers_of_no_digest_are_refused(served: Served) -> None:
    assert (await served.get(f"{APP}/referrers/v1")).code == (400, "DIGEST_INVALID")


# --- what is not there, and what would write ---


async def test_other_paths_are_no_endpoints(served: Served) -> None:
    for path in ("/", "/v1/", "/v2/team", f"{APP}/blobs/uploads/", "/v2//tags/list", "/metrics"):
        reply = await served.get(path)
        assert reply.status in {400, 404}
        assert reply.json["errors"][0]["code"]


TRICKS = (
    "/v2/..%2f..%2fetc/manifests/passwd",
    "/v2/a/%2e%2e/b/manifests/v1",
    "/v2/team/app/manifests/..%2f..%2fv1",
    "/v2/team/app/manifests/%00",
    "/v2/team/app/blobs/sha256:..%2f..%2f..%2fetc%2fpasswd",
    "/v2/.replicator/tags/list",
    "/v2/team/app/_manifests/tags/list",
)


async def test_path_tricks_lead_nowhere(served: Served) -> None:
    for path in TRICKS:
        async with served.client.get(URL(served.url + path, encoded=True)) as reply:
            assert reply.status in {400, 404}


async def test_whatever_would_write_is_refused(served: Served) -> None:
    paths = (f"{APP}/blobs/uploads/", f"{APP}/manifests/v1", f"{APP}/blobs/{NOWHERE}", "/v2/", "/nothing")
    for method, path in product(("PUT", "POST", "PATCH", "DELETE", "OPTIONS"), paths):
        reply = await served.get(path, method)
        assert reply.code == (405, "UNSUPPORTED")
        assert reply.headers["Allow"] == "GET, HEAD"


async def test_upload_is_refused_though_its_body_is_large(served: Served) -> None:
    async with served.client.put(
        f"{served.url}{APP}/manifests/v1", data=io.BytesIO(b"x" * 2_000_000)
    ) as reply:
        assert reply.status == 405
    assert (await served.get(f"{APP}/manifests/v1")).body == IMAGE.manifest.body
