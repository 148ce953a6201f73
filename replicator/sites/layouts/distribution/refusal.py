"""What a registry could not serve from its storage, so that it is refused before anything is written.

distribution keeps no media type beside the bytes: on reading, the JSON decides, strictly (its
`registry/storage/manifeststore.go`, and `unmarshal` of `manifest/ocischema`).
"""

from __future__ import annotations

import msgspec

from replicator.model.digest import Digest, algorithm
from replicator.model.manifest import Kind, Manifest
from replicator.model.mediatypes import OCI_INDEX, OCI_MANIFEST


class _Shape(msgspec.Struct, rename="camel"):
    schema_version: object = None
    media_type: object = None
    config: object = None
    layers: object = None
    manifests: object = None


def why_not_digest(digest: Digest) -> str | None:
    """Why a registry could not serve content of this name; None where it could."""
    if algorithm(digest) != "sha256":
        return f"{digest} is not a sha256 digest, the only kind that docker-registry serves"
    return None


def why_not(manifest: Manifest) -> str | None:
    """Why a registry could not serve the manifest from its storage; None where it could."""
    if manifest.kind is Kind.SCHEMA1:
        return "docker-registry 3 no longer serves images of Docker schema 1"
    if manifest.kind is Kind.UNKNOWN:
        return f"docker-registry serves no manifests of type {manifest.media_type}"
    named = (manifest.digest, *(one.digest for one in (*manifest.blobs, *manifest.children)))
    reason = next((reason for digest in named if (reason := why_not_digest(digest))), None)
    return reason or _why_not_shape(manifest)


def _why_not_shape(manifest: Manifest) -> str | None:
    shape = msgspec.json.decode(manifest.body, type=_Shape)
    if shape.schema_version != 2:
        return f"{manifest.digest} has schemaVersion {shape.schema_version!r}, docker-registry wants 2"
    read_as = shape.media_type or (OCI_INDEX if shape.manifests is not None else OCI_MANIFEST)
    if read_as != manifest.media_type:
        return (
            f"{manifest.digest} is {manifest.media_type} but does not say so in its JSON: "
            f"docker-registry would serve it as {read_as}"
        )
    if manifest.kind is Kind.IMAGE and shape.manifests is not None:
        return f"{manifest.digest} is an image that also names manifests: docker-registry refuses it"
    if manifest.kind is Kind.INDEX and (shape.config is not None or shape.layers is not None):
        return f"{manifest.digest} is an index that also names layers: docker-registry refuses it"
    return None
