"""How signatures lie in a repository: referrers with a bundle, and the tags and manifests of cosign before version 3.

sigstore/cosign, specs/SIGNATURE_SPEC.md and specs/BUNDLE_SPEC.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from replicator.model.descriptor import Descriptor, read_descriptor
from replicator.model.manifest import Kind, Manifest
from replicator.model.strictjson import read_object
from replicator.trust.bundle import is_bundle

Form = Literal["bundle", "simple signing", "DSSE"]

SIGNATURE_SUFFIXES: Final = (".sig", ".att")
"""Of cosign's older tags that hold something signed."""
MAX_PAYLOAD_BYTES: Final = 1024 * 1024
MAX_BUNDLE_BYTES: Final = 10 * 1024 * 1024
MAX_LAYERS: Final = 1000
"""Of one manifest; cosign refuses more, too."""
_SIMPLE: Final = "application/vnd.dev.cosign.simplesigning.v1+json"
_DSSE: Final = "application/vnd.dsse.envelope.v1+json"
_COSIGN_ARTIFACTS: Final = frozenset(
    {"application/vnd.dev.cosign.artifact.sig.v1+json", "application/vnd.dev.cosign.artifact.att.v1+json"}
)
_NOT_SUPPORTED: Final = {"application/vnd.cncf.notary.signature": "a Notary Project signature"}


@dataclass(frozen=True, slots=True)
class Layer:
    """Where the bytes of one signature are: a blob of the repository.

    `where` names it for people. `form` is what the blob is said to be. `annotations` are the layer's own: cosign keeps
    the older signatures there.
    """

    where: str
    form: Form
    blob: Descriptor
    annotations: Mapping[str, str] = field(default_factory=dict)


def may_be_signature(listed: Descriptor) -> bool:
    """False where a listing's entry is certainly not a signature, such as an SBOM, so that it need not be read.

    Entries of some registries lack the artifact type, and cosign's own entries the annotations: those may be one.
    """
    kind = listed.artifact_type
    return not kind or is_bundle(kind) or kind in _COSIGN_ARTIFACTS or kind in _NOT_SUPPORTED


def signature_layers(manifest: Manifest, where: str) -> Sequence[Layer]:
    """The signatures of one manifest, the newest first; none where it has none.

    Args:
        manifest: a referrer, or what a `.sig` or `.att` tag names.
        where: the manifest, for people.

    Raises:
        ValueError: it is a signature that cannot be verified, and why.
    """
    kind = manifest.descriptor.artifact_type or (manifest.config.media_type if manifest.config else "")
    if kind in _NOT_SUPPORTED:
        raise ValueError(f"{_NOT_SUPPORTED[kind]}, which cannot be verified here")
    if manifest.kind is not Kind.IMAGE:
        return []
    layers = read_object(manifest.body).get("layers")
    if not isinstance(layers, list):
        return []
    if len(layers) > MAX_LAYERS:
        raise ValueError(f"{len(layers)} layers, more than {MAX_LAYERS}")
    found = [
        (at, _form(layer.media_type), layer)
        for at, layer in enumerate(read_descriptor(each, f"layers[{at}]") for at, each in enumerate(layers))
    ]
    if is_bundle(kind) and (len(found) != 1 or found[0][1] != "bundle"):
        raise ValueError("a bundle must be the only layer of its manifest")
    return [
        Layer(f"{where} layer {at + 1}" if len(found) > 1 else where, form, layer, layer.annotations or {})
        for at, form, layer in reversed(found)
        if form is not None
    ]


def check_size(layer: Layer) -> None:
    """Raises ValueError for a blob that is too large to be a signature."""
    most = MAX_BUNDLE_BYTES if layer.form == "bundle" else MAX_PAYLOAD_BYTES
    if layer.blob.size is None or layer.blob.size > most:
        raise ValueError(f"{layer.blob.size} bytes, more than {most}")


def newest_first(listed: Sequence[Descriptor]) -> list[Descriptor]:
    """Referrers by the time they say they were created, the newest first; those that do not say follow.

    Whoever may write chooses that time. It orders the work, and decides nothing.
    """

    def created(descriptor: Descriptor) -> str:
        return (descriptor.annotations or {}).get("org.opencontainers.image.created", "")

    return sorted(listed, key=created, reverse=True)


def _form(media_type: str) -> Form | None:
    if is_bundle(media_type):
        return "bundle"
    return {_SIMPLE: "simple signing", _DSSE: "DSSE"}.get(media_type)  # type: ignore[return-value]
