"""Link files: a digest and nothing else, which is how a repository has content and a tag has a manifest."""

from __future__ import annotations

from replicator.model.digest import Digest, is_digest
from replicator.ports import ObjectStore
from replicator.sites.bounds import MAX_LINK_BYTES
from replicator.sites.layouts.errors import RepositoryErrors


async def read_link(store: ObjectStore, key: str, errors: RepositoryErrors, what: str) -> Digest:
    """The digest in a link file.

    Raises:
        NotFound: the link does not exist.
        Corrupt: not exactly a digest; a registry would not serve it either, a newline at the end is enough.
    """
    data, _ = await store.get(key, MAX_LINK_BYTES)
    text = data.decode("ascii", "replace")
    if not is_digest(text):
        hint = (
            "ends in a newline"
            if is_digest(text.rstrip())
            else f"holds {text[:80]!r} where a digest should be"
        )
        raise errors.corrupt("read link", f"{what}: {key} {hint}")
    return Digest(text)


async def write_link(store: ObjectStore, key: str, digest: Digest) -> None:
    """Points a link at a digest, atomically."""
    await store.put(key, digest.encode())
