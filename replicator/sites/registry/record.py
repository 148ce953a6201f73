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
    """What one registry can do, or is assumed to do. Sizes are bytes. `docs/configuration.md` shows these sentences.

    `upload`: Strategy for uploads to begin with. If it is refused, the next of `put`, `patch`, `chunks` is tried.
    `single_post`: Whether a small blob may be sent with the POST that opens its upload (`?digest=`); `try`: find out once.
    `body_limit`: Largest body of one request; larger blobs are sent in chunks. 0: no known limit.
    `chunk_bytes`: Size of a chunk. 0: this registry cannot assemble chunks.
    `resume`: The offset that it reports for an interrupted upload can be trusted.
    `status_range`: Meaning of `Range` in the status of an upload: the last byte (`inclusive`, the standard), or the number of
    bytes (`exclusive`, Quay).
    `mount`: Blobs can be mounted from another repository.
    `catalog`: Repositories can be listed.
    `delete_tag`: A single tag can be deleted with DELETE. replicator does not delete tags yet.
    `tags_list`: The tags of a repository can be listed. `false`: a destination is asked tag by tag.
    `head_manifests`: HEAD of a manifest gives the same answer as GET. `false`: manifests are read instead.
    `sparse`: Whether an index is accepted while children of it are missing; `try`: find out with the first copy.
    `foreign_layers`: Manifests may name layers by URL only (older Windows images).
    `schema1`: Manifests of Docker schema 1 are accepted.
    `sha512`: What may have a sha512 digest: nothing, blobs, blobs and untagged manifests (`untagged`), or everything.
    `has_referrers`: The referrers API certainly exists, so that its 404 is an error (zot, if one manifest of the repository is
    broken).
    `tags_per_page`: Page size to request (`n`) when tags are listed; 0: request none.
    `repositories_per_page`: The same for repositories.
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
