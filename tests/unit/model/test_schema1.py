"""Docker schema 1: what the digest is of, and the layers."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.model.digest import digest_of
from replicator.model.manifest import Kind, parse_manifest
from replicator.model.mediatypes import DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED
from replicator.model.schema1 import payload, signed_digest
from tests.fakes import content

SIGNED = content.schema1("old")
PLAIN = content.schema1("old", signed=False)


def _with(**changes: Any) -> bytes:
    """The signed manifest with members of its signature replaced."""
    document = json.loads(SIGNED.manifest.body)
    document["signatures"][0] |= changes
    return json.dumps(document).encode()


def _protected(**members: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(members).encode()).decode().rstrip("=")


def test_the_digest_is_of_what_is_signed() -> None:
    assert payload(SIGNED.manifest.body) == PLAIN.manifest.body
    assert SIGNED.digest == PLAIN.digest == digest_of(PLAIN.manifest.body)
    assert SIGNED.digest != digest_of(SIGNED.manifest.body)
    assert signed_digest(SIGNED.manifest.body, "sha512") == digest_of(PLAIN.manifest.body, "sha512")
    assert (SIGNED.manifest.media_type, PLAIN.manifest.media_type) == (DOCKER_SCHEMA1_SIGNED, DOCKER_SCHEMA1)


def test_its_layers_are_each_once_and_of_unknown_size() -> None:
    digest = digest_of(b"layer")
    body = {"schemaVersion": 1, "fsLayers": [{"blobSum": digest}, {"blobSum": digest}]}
    [layer] = parse_manifest(json.dumps(body).encode(), "").blobs
    assert (layer.digest, layer.size) == (digest, None)


def test_of_another_document_there_is_no_such_digest() -> None:
    assert signed_digest(b'{"schemaVersion": 2, "signatures": []}') is None
    assert signed_digest(b'{"schemaVersion": true, "signatures": []}') is None


@pytest.mark.parametrize(
    "body",
    [
        b'{"schemaVersion": 1, "fsLayers": [], "signatures": []}',
        b'{"schemaVersion": 1, "fsLayers": [], "signatures": {}}',
        b'{"schemaVersion": 1, "fsLayers": [], "signatures": [{}]}',
        b'{"schemaVersion": 1, "fsLayers": [], "signatures": [7]}',
        _with(protected=None),
        _with(protected="?"),
        _with(protected="\u00e9"),
        _with(protected=_protected(formatLength=-1, formatTail="fQ")),
        _with(protected=_protected(formatLength=10**9, formatTail="fQ")),
        _with(protected=_protected(formatLength="1", formatTail="fQ")),
        _with(protected=_protected(formatLength=5, formatTail="fQ")),  # not JSON
        b'{"schemaVersion": 1}',
        b'{"schemaVersion": 1, "fsLayers": [7]}',
        b'{"schemaVersion": 1, "fsLayers": [{}]}',
        b'{"schemaVersion": 1, "fsLayers": [{"blobSum": "sha256:0"}]}',
        b'{"schemaVersion": 1, "fsLayers": [], "FSLayers": []}',
        b'{"schemaVersion": 1, "fsLayers": [{"blobsum": "x"}]}',
    ],
)
def test_what_cannot_be_read_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_manifest(body, DOCKER_SCHEMA1_SIGNED)


def test_signatures_of_different_payloads_are_refused() -> None:
    document = json.loads(SIGNED.manifest.body)
    document["signatures"].append(
        json.loads(content.schema1("another, longer").manifest.body)["signatures"][0]
    )
    with pytest.raises(ValueError, match="different payloads"):
        payload(json.dumps(document).encode())


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_whatever_comes_is_refused_with_a_reason(body: bytes) -> None:
    try:
        manifest = parse_manifest(body, DOCKER_SCHEMA1_SIGNED)
    except ValueError:
        return
    assert manifest.kind in Kind
