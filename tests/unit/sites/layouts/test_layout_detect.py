"""Which layout a store has, by its top alone."""

from __future__ import annotations

import pytest

from replicator.sites.layouts.detect import detect
from replicator.sites.layouts.settings import Layout
from tests.fakes.objects import MemoryStore

LAYOUT = ("oci-layout", "index.json", "blobs/sha256/x")


@pytest.mark.parametrize(
    ("keys", "layout"),
    [
        ((), None),
        (("notes.txt",), None),
        (("index.json",), None),
        (LAYOUT, "oci"),
        (("team/app/index.json",), "oci"),
        (("docker/registry/v2/repositories/app/_manifests/x",), "distribution"),
        (("docker/registry/v2/blobs/sha256/00/x/data", "index.json"), "distribution"),
        (("docker/registry/notes.txt",), "oci"),
        (("docker/library/app/index.json",), "oci"),
        (tuple(f"docker/registry/v2/{key}" for key in LAYOUT), "oci"),
    ],
)
async def test_the_layout_that_fits(keys: tuple[str, ...], layout: Layout | None) -> None:
    store = MemoryStore()
    store.objects.update(dict.fromkeys(keys, b""))
    assert (await detect(store)).layout == layout


@pytest.mark.parametrize(
    ("keys", "facts"),
    [
        (LAYOUT, (True, False, False)),
        (("index.json", "app/x"), (False, True, False)),
        (("oci-layout",), (False, True, False)),
        ((), (False, False, True)),
    ],
)
async def test_a_store_that_is_itself_a_layout(keys: tuple[str, ...], facts: tuple[bool, bool, bool]) -> None:
    store = MemoryStore()
    store.objects.update(dict.fromkeys(keys, b""))
    found = await detect(store)
    assert (found.is_layout, found.is_part_of_layout, found.is_empty) == facts
