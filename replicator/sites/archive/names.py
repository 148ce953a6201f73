"""What the entries of an archive's index are called: which repository, which tag.

One layout holds all repositories, each blob once. An entry's `org.opencontainers.image.ref.name` is
`REPOSITORY:TAG` (or `REPOSITORY@DIGEST` without a tag), which skopeo and podman take as `oci-archive:FILE:NAME`.
An annotation of ours has the repository by itself, as `my.team/app:v1` could also be an `app` at the host `my.team`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from replicator.model.names import is_repository, is_tag, parse_reference
from replicator.sites.layouts.oci.entries import CONTAINERD_NAME, REF_NAME, Entry, digest_in, tag_of
from replicator.sites.layouts.oci.index import Index

REPOSITORY: Final = "io.replicator.repository"


def renamed(index: Index, repository: str) -> Iterator[Entry]:
    """A repository's entries as they are in an archive of many."""
    for entry in index.entries():
        tag, digest = tag_of(entry), digest_in(entry)
        name = f"{repository}:{tag}" if tag else f"{repository}@{digest}"
        annotations = {key: value for key, value in _annotations(entry).items() if key != CONTAINERD_NAME}
        yield entry | {"annotations": annotations | {REF_NAME: name, REPOSITORY: repository}}


def repository_of(entry: Entry) -> str | None:
    """The repository that an entry belongs to; by docker's rules where another tool wrote it. None: it has no name."""
    annotations = _annotations(entry)
    ours = annotations.get(REPOSITORY)
    if isinstance(ours, str):
        return ours if is_repository(ours) else None
    for key in (CONTAINERD_NAME, REF_NAME):
        name = annotations.get(key)
        if isinstance(name, str) and name and not is_tag(name):
            try:
                return parse_reference(name).repository
            except ValueError:
                continue
    return None


def plain(entry: Entry) -> Entry:
    """The entry as in its repository's own layout."""
    tag = tag_of(entry)
    annotations = {
        key: value
        for key, value in _annotations(entry).items()
        if key not in {REPOSITORY, REF_NAME, CONTAINERD_NAME}
    }
    if tag is not None:
        annotations[REF_NAME] = tag
    bare = {key: value for key, value in entry.items() if key != "annotations"}
    return bare | {"annotations": annotations} if annotations else bare


def called(entry: Entry, name: str) -> bool:
    """Whether the entry goes by this name: its whole name, or its tag alone."""
    annotations = _annotations(entry)
    return name in (annotations.get(REF_NAME), annotations.get(CONTAINERD_NAME), tag_of(entry))


def name_of(entry: Entry) -> str:
    """What to call an entry when telling of it."""
    annotations = _annotations(entry)
    return str(annotations.get(REF_NAME) or annotations.get(CONTAINERD_NAME) or entry.get("digest"))


def _annotations(entry: Entry) -> dict[str, object]:
    found = entry.get("annotations")
    return found if isinstance(found, dict) else {}
