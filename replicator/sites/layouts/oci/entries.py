"""The entries of an `index.json`: what one says of its manifest, and how ours are written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from replicator.model.descriptor import Descriptor
from replicator.model.digest import Digest, parse_digest
from replicator.model.manifest import Manifest
from replicator.model.names import is_tag, parse_reference

REF_NAME: Final = "org.opencontainers.image.ref.name"
CONTAINERD_NAME: Final = "io.containerd.image.name"

_PLAIN: Final = frozenset({"mediaType", "digest", "size", "platform"})

Entry = dict[str, Any]
"""A descriptor as parsed from JSON, with all its keys."""


def descriptor_of(entry: Entry) -> Descriptor:
    """The descriptor that an entry is. Raises ValueError for an entry that is not one."""
    try:
        descriptor = msgspec.convert(entry, Descriptor)
    except msgspec.ValidationError as error:
        raise ValueError(f"its entry in index.json is not a descriptor: {error}") from error
    parse_digest(descriptor.digest)
    if descriptor.size is None or descriptor.size < 0:
        raise ValueError(f"its entry in index.json has the size {descriptor.size}")
    return descriptor


def digest_in(entry: Entry) -> Digest | None:
    """An entry's digest; None if it has no valid one."""
    try:
        return parse_digest(entry.get("digest", ""))
    except (ValueError, TypeError):
        return None


def tag_of(entry: Entry) -> str | None:
    """The tag that an entry gives its manifest.

    Usually `org.opencontainers.image.ref.name` is the tag; some tools put the whole reference there, and
    containerd puts it into an annotation of its own.
    """
    annotations = annotations_in(entry)
    return tag_named(annotations.get(REF_NAME), annotations.get(CONTAINERD_NAME))


def tag_named(ref_name: object, containerd_name: object) -> str | None:
    """The tag that the two annotations give; either may be missing or not a string."""
    if isinstance(ref_name, str) and is_tag(ref_name):
        return ref_name
    for name in (ref_name, containerd_name):
        if isinstance(name, str) and name:
            try:
                tag = parse_reference(name).tag
            except ValueError:
                continue
            if tag is not None:
                return tag
    return None


def annotations_in(entry: Entry | None) -> dict[str, Any]:
    """An entry's annotations; empty where it has none, or something else under that key."""
    found = entry.get("annotations") if entry else None
    return found if isinstance(found, dict) else {}


def is_plain(entry: Entry) -> bool:
    """Whether the entry says nothing but which manifest it names."""
    return entry.keys() <= _PLAIN


def entry_of(manifest: Manifest) -> Entry:
    """The entry of a manifest, without annotations."""
    entry: Entry = {
        "mediaType": manifest.media_type,
        "digest": manifest.digest,
        "size": len(manifest.body),
    }
    artifact_type = manifest.descriptor.artifact_type
    if manifest.subject is not None and artifact_type is None and manifest.config is not None:
        artifact_type = manifest.config.media_type
    return entry | {"artifactType": artifact_type} if artifact_type else entry


def without_names(annotations: Mapping[str, str]) -> dict[str, str]:
    """A manifest's own annotations as an entry's, without the two that would make it a tag."""
    return {key: value for key, value in annotations.items() if key not in (REF_NAME, CONTAINERD_NAME)}
