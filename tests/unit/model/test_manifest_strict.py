"""Manifests: strict in what is followed, lenient in what nobody follows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.model.digest import digest_of
from replicator.model.manifest import Kind, Manifest, annotations_of, parse_manifest
from replicator.model.mediatypes import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    DOCKER_SCHEMA1,
    OCI_INDEX,
    OCI_MANIFEST,
)

LAYER: Mapping[str, Any] = {
    "mediaType": "application/vnd.oci.image.layer.v1.tar",
    "digest": digest_of(b"l"),
    "size": 1,
}
CONFIG: Mapping[str, Any] = {
    "mediaType": "application/vnd.oci.image.config.v1+json",
    "digest": digest_of(b"c"),
    "size": 1,
}
IMAGE: Mapping[str, Any] = {
    "schemaVersion": 2,
    "mediaType": OCI_MANIFEST,
    "config": CONFIG,
    "layers": [LAYER],
}
INDEX: Mapping[str, Any] = {
    "schemaVersion": 2,
    "mediaType": OCI_INDEX,
    "manifests": [{**LAYER, "mediaType": OCI_MANIFEST}],
}
BARE: Mapping[str, Any] = {key: value for key, value in IMAGE.items() if key != "mediaType"}
BARE_INDEX: Mapping[str, Any] = {key: value for key, value in INDEX.items() if key != "mediaType"}


def _parsed(document: object, served: str = OCI_MANIFEST) -> Manifest:
    return parse_manifest(json.dumps(document).encode(), served)


@pytest.mark.parametrize(
    "change",
    [
        {"urls": None},
        {"annotations": None},
        {"annotations": {"k": None}},
        {"annotations": [1]},
        {"platform": None},
        {"platform": {"architecture": None, "os": 5, "os.version": None}},
        {"data": None},
        {"mediaType": None},
        {"artifactType": 1},
        {"unknown": {"digest": 1}},
        {"annotations": {"k": "\ud800"}},
    ],
)
def test_members_that_nobody_follows_may_be_anything(change: Mapping[str, Any]) -> None:
    manifest = _parsed({**IMAGE, "layers": [{**LAYER, **change}]})
    assert [blob.digest for blob in manifest.blobs] == [digest_of(b"c"), digest_of(b"l")]
    assert manifest.blobs[1].size == 1


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"digest": None}, "layers[0] has no digest"),
        ({"digest": "sha256:x"}, "sha256:x"),
        ({"size": None}, "no size"),
        ({"size": 10.0}, "no size"),
        ({"size": True}, "no size"),
        ({"size": "1"}, "no size"),
        ({"size": -1}, "impossible size: -1"),
        ({"size": 2**63}, "impossible size"),
        ({"size": 10**400}, "401 digits"),
        ({"mediaType": 5}, "not text"),
        ({"Size": 1}, "'Size', which some clients read as 'size'"),
        ({"\u017fize": 1}, "which some clients read as 'size'"),
        ({"DIGEST": digest_of(b"other")}, "'DIGEST'"),
    ],
)
def test_what_is_followed_is_required(change: Mapping[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        _parsed({**IMAGE, "layers": [{**LAYER, **change}]})
    assert why in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b'{"status":"maintenance"}', "schemaVersion is missing"),
        (b'{"schemaVersion":2}', "neither config and layers nor manifests"),
        (b'{"schemaVersion":2,"config":{},"layers":[]}', "config has no digest"),
        (b'{"schemaVersion":2,"layers":[]}', "neither"),
        (b'{"schemaVersion":"2","layers":[],"config":{}}', "schemaVersion is '2'"),
        (b'{"schemaVersion":2,"mediaType":"a b/c\\u001b"}', "not a media type"),
        (b"[1]", "not an object"),
        (b"\xef\xbb\xbf{}", "not valid JSON"),
        (b"\xff", "not UTF-8"),
        (b'{"schemaVersion":NaN}', "not JSON"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"x":[' + b"[]," * 2_000_000 + b"[]]}", "more than 500000 members"),
        (b'{"schemaVersion":2,"schemaVersion":2,"manifests":[]}', "'schemaVersion' twice"),
        (b'{"schemaVersion":2,"Manifests":[]}', "'Manifests', which some clients read as 'manifests'"),
    ],
)
@pytest.mark.parametrize("served", ["", "text/html", OCI_MANIFEST, OCI_INDEX, DOCKER_SCHEMA1])
def test_what_is_not_a_manifest_is_refused_whatever_it_was_served_as(
    body: bytes, why: str, served: str
) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse_manifest(body, served)
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("document", "served", "kind", "media_type", "served_as"),
    [
        (IMAGE, OCI_MANIFEST, Kind.IMAGE, OCI_MANIFEST, ""),
        (IMAGE, f"{OCI_MANIFEST}; charset=utf-8", Kind.IMAGE, OCI_MANIFEST, ""),
        (IMAGE, "application/octet-stream", Kind.IMAGE, OCI_MANIFEST, ""),
        (IMAGE, "text/html", Kind.IMAGE, OCI_MANIFEST, "text/html"),
        (IMAGE, OCI_INDEX, Kind.IMAGE, OCI_MANIFEST, OCI_INDEX),
        (IMAGE, DOCKER_SCHEMA1, Kind.IMAGE, OCI_MANIFEST, DOCKER_SCHEMA1),
        (INDEX, OCI_MANIFEST, Kind.INDEX, OCI_INDEX, OCI_MANIFEST),
        (BARE, DOCKER_MANIFEST, Kind.IMAGE, DOCKER_MANIFEST, ""),
        (BARE, DOCKER_LIST, Kind.IMAGE, OCI_MANIFEST, DOCKER_LIST),
        (BARE_INDEX, DOCKER_LIST, Kind.INDEX, DOCKER_LIST, ""),
        (BARE_INDEX, "", Kind.INDEX, OCI_INDEX, ""),
        ({"schemaVersion": 1, "fsLayers": []}, "", Kind.SCHEMA1, DOCKER_SCHEMA1, ""),
        ({**INDEX, "manifests": None}, OCI_INDEX, Kind.INDEX, OCI_INDEX, ""),
        ({**IMAGE, "layers": None}, "", Kind.IMAGE, OCI_MANIFEST, ""),
        ({**IMAGE, "manifests": None}, "", Kind.IMAGE, OCI_MANIFEST, ""),
    ],
)
def test_the_document_decides_what_it_is(
    document: Mapping[str, Any], served: str, kind: Kind, media_type: str, served_as: str
) -> None:
    manifest = _parsed(document, served)
    assert (manifest.kind, manifest.media_type, manifest.served_as) == (kind, media_type, served_as)


def test_blobs_of_an_artifact_manifest_are_followed() -> None:
    artifact = {
        "mediaType": "application/vnd.oci.artifact.manifest.v1+json",
        "artifactType": "a/b",
        "blobs": [LAYER],
    }
    manifest = _parsed(artifact, "")
    assert (manifest.kind, [blob.digest for blob in manifest.blobs]) == (Kind.IMAGE, [LAYER["digest"]])


def test_members_named_twice_where_nobody_follows_them_are_no_fault() -> None:
    body = json.dumps(IMAGE)[:-1] + ', "annotations": {"a": "1", "a": "2"}}'
    manifest = parse_manifest(body.encode(), "")
    assert annotations_of(manifest) == {"a": "2"}


def test_annotations_are_found_however_their_name_is_written() -> None:
    body = json.dumps(IMAGE)[:-1] + ', "\\u0061nnotations": {"a": "1"}}'
    assert annotations_of(parse_manifest(body.encode(), "")) == {"a": "1"}
    assert annotations_of(parse_manifest(json.dumps(IMAGE).encode(), "")) is None


def test_manifests_are_bounded_by_bytes_and_not_by_count() -> None:
    children = [
        {"mediaType": OCI_MANIFEST, "digest": digest_of(b"%d" % at), "size": 7} for at in range(20_000)
    ]
    assert len(_parsed({**INDEX, "manifests": children}, "").children) == 20_000


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_descriptor = st.dictionaries(
    st.sampled_from([*LAYER, "urls", "annotations", "platform", "data", "Size"]), _json
).map(lambda change: {**LAYER, **change})


@given(
    st.dictionaries(
        st.sampled_from(["schemaVersion", "mediaType", "config", "layers", "manifests", "subject"]), _json
    ),
    st.lists(_descriptor | _json, max_size=3),
    st.sampled_from(["", OCI_INDEX, "text/html", DOCKER_SCHEMA1]),
)
def test_any_document_is_a_manifest_or_a_value_error(
    change: dict[str, Any], layers: list[Any], served: str
) -> None:
    body = json.dumps({**IMAGE, "layers": layers, **change}).encode()
    try:
        manifest = parse_manifest(body, served)
    except ValueError:
        return
    assert manifest.body == body
    for edge in (*manifest.blobs, *manifest.children):
        assert edge.size is not None
        assert edge.size >= 0
