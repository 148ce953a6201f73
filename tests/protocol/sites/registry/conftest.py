"""What the tests of registries share."""

from __future__ import annotations

import pytest

from replicator.sites.registry.body import UploadBody


@pytest.fixture
def by_the_loop(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the chunks that the event loop gave to an upload."""
    sizes: list[int] = []
    given_out = UploadBody.__anext__

    async def counted(body: UploadBody) -> bytes | memoryview:
        chunk = await given_out(body)
        sizes.append(len(chunk))
        return chunk

    monkeypatch.setattr(UploadBody, "__anext__", counted)
    return sizes
