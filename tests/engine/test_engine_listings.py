"""What a listing told of each tag is kept while the tag is there, so that it is not read again, and no longer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

import pytest

from replicator.demo.images import image
from replicator.engine.observe.tags import list_tags
from replicator.errors import Unavailable
from replicator.events import Events
from replicator.ports import Listed
from replicator.sites.layouts.distribution.repository import DistributionRepository
from replicator.sites.layouts.distribution.site import DistributionSite
from replicator.state.memory import MemoryState
from tests.fakes.clock import FakeClock
from tests.fakes.layouts import put_image
from tests.fakes.objects import MemoryStore


@pytest.mark.parametrize("record", [False, True])
async def test_tags_that_a_complete_listing_no_longer_has_are_forgotten(*, record: bool) -> None:
    store, state = MemoryStore(), MemoryState(FakeClock())
    repository = DistributionSite(store, events=Events()).repository("app")
    for tag in ("v1", "v2"):
        await put_image(repository, image(tag), tag)
    await list_tags(repository, state, record=True)
    known = await state.listed(repository.site, "app")
    assert set(known) == {"v1", "v2"}
    await repository.delete_tag("v2")
    assert set((await list_tags(repository, state, record=record)).tags) == {"v1"}
    assert set(await state.listed(repository.site, "app")) == ({"v1"} if record else {"v1", "v2"})


async def test_a_listing_that_broke_off_forgets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    store, state = MemoryStore(), MemoryState(FakeClock())
    repository = DistributionSite(store, events=Events()).repository("app")
    for tag in ("v1", "v2"):
        await put_image(repository, image(tag), tag)
    await list_tags(repository, state, record=True)
    whole = DistributionRepository.listed

    async def broken(
        self: DistributionRepository, known: Mapping[str, Listed]
    ) -> AsyncIterator[Sequence[Listed]]:
        async for page in whole(self, known):
            yield page[:1]
            raise Unavailable(self.site, "list tags", "broken off", repository="app")

    monkeypatch.setattr(DistributionRepository, "listed", broken)
    listing = await list_tags(repository, state, record=True)
    assert (set(listing.tags), listing.complete) == ({"v1"}, False)
    assert set(await state.listed(repository.site, "app")) == {"v1", "v2"}
