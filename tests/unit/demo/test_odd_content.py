"""The odd images are what they say, and all but the sparse one can be kept whole."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from replicator.demo.images import BuiltImage, image, load
from replicator.demo.store import StoreError
from replicator.model.manifest import Kind
from tests.fakes import content
from tests.fakes.watched import WatchedStore

WHOLE: list[tuple[Callable[[str], BuiltImage], Kind, int, int]] = [
    (content.docker_image, Kind.IMAGE, 3, 0),
    (lambda seed: content.docker_list(content.docker_image(seed)), Kind.INDEX, 0, 1),
    (content.without_media_type, Kind.IMAGE, 3, 0),
    (content.with_foreign_layer, Kind.IMAGE, 3, 0),
    (content.with_repeated_layer, Kind.IMAGE, 3, 0),
    (lambda seed: content.artifact(seed, image(seed).manifest), Kind.IMAGE, 2, 0),
    (content.nested_index, Kind.INDEX, 0, 2),
    (content.with_attestation, Kind.INDEX, 0, 2),
    (content.schema1, Kind.SCHEMA1, 1, 0),
    (content.unknown_type, Kind.UNKNOWN, 0, 0),
    (content.large_manifest, Kind.IMAGE, 3, 0),
]


@pytest.mark.parametrize(("build", "kind", "blobs", "children"), WHOLE)
def test_odd_images_are_kept_whole(
    build: Callable[[str], BuiltImage], kind: Kind, blobs: int, children: int
) -> None:
    built, store = build("odd"), WatchedStore()
    load(store, "app", "v1", built)
    assert store.dangling() == []
    manifest = store.manifest("app", "v1")
    assert (manifest.kind, len(manifest.blobs), len(manifest.children)) == (kind, blobs, children)


def test_sparse_index_is_refused_unless_nothing_is_checked() -> None:
    with pytest.raises(StoreError):
        load(WatchedStore(), "app", "v1", content.sparse_index("odd"))
    careless = WatchedStore(refuses_dangling=False)
    seen = careless.watch_dangling()
    load(careless, "app", "v1", content.sparse_index("odd"))
    assert len(seen) == 1
