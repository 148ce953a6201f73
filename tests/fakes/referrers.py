"""Manifests that refer to another, as cosign, notation and SBOM tools write them."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from replicator.demo.images import BuiltImage
from replicator.model.descriptor import Descriptor
from replicator.model.digest import digest_of
from replicator.model.manifest import parse_manifest
from replicator.model.mediatypes import OCI_INDEX, OCI_MANIFEST

EMPTY = "application/vnd.oci.empty.v1+json"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
SPDX = "application/spdx+json"
NOTATION = "application/vnd.cncf.notary.signature"
SIGNED = "https://sigstore.dev/cosign/sign/v1"
PROVENANCE = "https://slsa.dev/provenance/v1"


def referrer(
    subject: BuiltImage,
    artifact_type: str = SPDX,
    annotations: Mapping[str, str] | None = None,
    *,
    seed: str = "",
) -> BuiltImage:
    """A manifest of one small blob with an empty config. Another `seed` makes another manifest."""
    content = f"{artifact_type} of {subject.digest} {seed}".encode()
    body: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": artifact_type,
        "config": Descriptor(EMPTY, digest_of(b"{}"), 2),
        "layers": [Descriptor(artifact_type, digest_of(content), len(content))],
        "subject": subject.manifest.descriptor,
    }
    if annotations:
        body["annotations"] = dict(annotations)
    blobs = {digest_of(data): data for data in (b"{}", content)}
    return BuiltImage(parse_manifest(msgspec.json.encode(body), OCI_MANIFEST), blobs)


def bundle(subject: BuiltImage, predicate: str = SIGNED, *, seed: str = "") -> BuiltImage:
    """As cosign 3 attaches a signature or (another predicate) an attestation; there is nothing to verify in it."""
    annotations = {
        "dev.sigstore.bundle.content": "dsse-envelope",
        "dev.sigstore.bundle.predicateType": predicate,
    }
    return referrer(subject, BUNDLE, annotations, seed=seed)


def fallback_index(*entries: BuiltImage, annotations: Mapping[str, str] | None = None) -> BuiltImage:
    """A fallback tag's index as another client writes it: in the order given, without types and annotations."""
    body = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [
            {"mediaType": one.manifest.media_type, "digest": one.digest, "size": len(one.manifest.body)}
            for one in entries
        ],
        "annotations": dict(annotations or {"by": "another client"}),
    }
    return BuiltImage(parse_manifest(msgspec.json.encode(body), OCI_INDEX), {})
