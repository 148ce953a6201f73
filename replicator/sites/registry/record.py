"""What one registry can do, as a record of plain values."""

from __future__ import annotations

from typing import Literal

import msgspec

Strategy = Literal["put", "patch", "chunks"]
"""How a blob's bytes go up: in the closing PUT; in one PATCH; in several PATCHes with Content-Range."""

Sha512 = Literal["none", "blobs", "untagged", "all"]
"""What may have a digest of sha512: nothing; blobs; manifests too, but none with a tag; everything."""

Tried = Literal["try", "yes", "no"]

StatusRange = Literal["inclusive", "exclusive"]


class CapabilityRecord(msgspec.Struct, frozen=True):
    """What one registry can do. Sizes are bytes; each field can be set in the config by its name.

    `upload`: the strategy to begin with; where it is refused, the next of put, patch, chunks is tried.
    `single_post`: whether the POST that opens an upload takes a small blob along (`?digest=`); "try" is found out once.
    `body_limit`: the largest body of one request, larger blobs go in chunks; 0 means no limit is known.
    `chunk_bytes`: what a chunk holds; 0 means that this registry cannot put chunks together.
    `resume`: the offset that it reports of a broken upload can be believed.
    `status_range`: whether that report's Range names the last byte (the standard) or the count (Quay).
    `mount`: blobs can be mounted from another repository.
    `catalog`, `delete_tag`: repositories can be listed; one tag can be deleted by DELETE of the tag
    (nothing does so yet).
    `tags_list`: the tags of a repository can be listed. Where they cannot, a destination is asked tag by tag.
    `sparse`: an index is taken of which children are missing; "try": only a copy tells.
    `foreign_layers`: manifests may name layers by URL alone (Windows base images).
    `schema1`: manifests of Docker's first format are taken.
    `sha512`: what may have a digest of that kind: none, blobs, untagged (blobs and manifests that have no tag) or all.
    `head_manifests`: HEAD of a manifest tells what GET does. Where it does not, manifests are read instead.
    `has_referrers`: the referrers API is there for certain, so that a 404 of it is damage (zot, when one manifest of the
    repository is broken).
    `tags_per_page`, `repositories_per_page`: what is asked for (`n`); 0 asks for nothing.
    """

    upload: Strategy = "put"
    single_post: Tried = "try"
    body_limit: int = 0
    chunk_bytes: int = 16 * 1024 * 1024
    resume: bool = True
    status_range: StatusRange = "inclusive"
    mount: bool = True
    catalog: bool = True
    delete_tag: bool = False
    tags_list: bool = True
    head_manifests: bool = True
    sparse: Tried = "try"
    foreign_layers: bool = True
    schema1: bool = True
    sha512: Sha512 = "all"
    has_referrers: bool = False
    tags_per_page: int = 1000
    repositories_per_page: int = 1000
