"""The registries for huge blobs keep none of them, and still check every byte."""

from __future__ import annotations

import pytest

from replicator.demo.store import CHUNK_BYTES, StoreError
from replicator.events import Events
from replicator.flow.clock import SystemClock
from replicator.model.digest import digest_of
from replicator.sites.registry.settings import RegistrySettings
from replicator.sites.registry.site import RegistrySite
from tests.fakes.streaming import DiscardingStore, StreamingFake, SyntheticBlob


def test_synthetic_blob_is_the_same_from_any_offset() -> None:
    size = 3 * CHUNK_BYTES + 5
    blob = SyntheticBlob(1, size)
    whole = b"".join(blob.read())
    assert (len(whole), digest_of(whole)) == (size, blob.digest)
    for start, stop in ((0, 1), (3, CHUNK_BYTES + 1), (CHUNK_BYTES, size), (size - 1, None)):
        assert b"".join(blob.read(start, stop)) == whole[start:stop]
    assert SyntheticBlob(2, size).digest != blob.digest


def test_discarding_store_checks_what_it_throws_away() -> None:
    store = DiscardingStore()
    upload = store.start_upload("app")
    upload.write(b"data")
    with pytest.raises(StoreError):
        store.finish_upload(upload, digest_of(b"other"))
    upload = store.start_upload("app")
    upload.write(b"data")
    store.finish_upload(upload, digest_of(b"data"))
    assert store.blob("app", digest_of(b"data")).size == 4


async def test_blob_streams_from_one_to_the_other() -> None:
    async with StreamingFake.serve() as fake:
        manifest = fake.image("big/app", "v1", layers=1, size=20_000_000)
        sites = [
            RegistrySite(RegistrySettings(name, registry.url), events=Events(), clock=SystemClock())
            for name, registry in (("from", fake.source), ("to", fake.destination))
        ]
        try:
            source, destination = (site.repository("big/app") for site in sites)
            for blob in manifest.blobs:
                await destination.write_blob(source.blob(blob))
            await destination.write_manifest(manifest, "v1")
        finally:
            for site in sites:
                await site.aclose()
        assert fake.destination.store.blob("big/app", manifest.blobs[1].digest).size == 20_000_000
        assert fake.destination.store.uploads == {}
