"""New indexes of a part of the children of others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from replicator.model.digest import Digest, algorithm, digest_of
from replicator.model.manifest import Kind, Manifest, parse_manifest
from replicator.model.strictjson import read_object


def rewritten(root: Manifest, manifests: Mapping[Digest, Manifest]) -> dict[Digest, Manifest]:
    """The indexes that have to be new for the root to name only what is followed, by the digest that they replace.

    Those that leave something out, and those above them. The same input gives the same bytes. What is not left out keeps
    its entry as it is, unknown members included; an index of which nothing is left is left out of the one above it.

    Args:
        root: an index.
        manifests: the indexes below it by digest (see `model.manifest.sparse`); others are not looked at.
    """
    new: dict[Digest, Manifest] = {}

    def visit(manifest: Manifest) -> None:
        for child in manifest.children:
            below = manifests.get(child.digest)
            if below is not None and below.kind is Kind.INDEX and child.digest not in new:
                visit(below)
        dropped = {child.digest for child in manifest.left_out}
        dropped |= {child.digest for child in manifest.children if _is_emptied(new.get(child.digest))}
        if dropped or any(child.digest in new for child in manifest.children):
            new[manifest.digest] = _without(manifest, dropped, new)

    if root.kind is Kind.INDEX:
        visit(root)
    return new


def _is_emptied(manifest: Manifest | None) -> bool:
    return manifest is not None and not manifest.children


def _without(manifest: Manifest, dropped: set[Digest], new: Mapping[Digest, Manifest]) -> Manifest:
    document = read_object(manifest.body)
    kept = [_entry(entry, new) for entry in document["manifests"] if entry["digest"] not in dropped]
    body = msgspec.json.encode({**document, "manifests": kept})
    return parse_manifest(body, manifest.media_type, digest_of(body, algorithm(manifest.digest)))


def _entry(entry: dict[str, Any], new: Mapping[Digest, Manifest]) -> dict[str, Any]:
    replaced = new.get(entry["digest"])
    if replaced is None:
        return entry
    own = {name: value for name, value in entry.items() if name != "data"}
    return {**own, "digest": replaced.digest, "size": len(replaced.body)}
