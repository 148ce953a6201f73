"""Writing whole images into repositories, and what a site with a layout tells."""

from __future__ import annotations

from replicator.demo.images import BuiltImage
from replicator.events import Event, Events, Warned
from replicator.ports import ListsDigests, Repository
from tests.fakes.source import BytesSource


async def put_image(repository: Repository, built: BuiltImage, tag: str | None = None) -> None:
    """Puts an image, whole, children first."""
    for one in built.walk():
        for digest, data in one.blobs.items():
            await repository.write_blob(BytesSource(data, digest=digest))
        if one is not built:
            await repository.write_manifest(one.manifest)
    await repository.write_manifest(built.manifest, tag)


async def names(repository: Repository) -> list[str]:
    """All tags, sorted."""
    return sorted([tag async for page in repository.tags() for tag in page])


async def digests(repository: ListsDigests) -> dict[str, str]:
    """What every tag names."""
    return {one.tag: one.digest or "" async for page in repository.listed({}) for one in page}


async def collect(repository: ListsDigests, found: set[str]) -> None:
    """Adds every tag of a listing, up to where it breaks off."""
    async for page in repository.listed({}):
        found.update(one.tag for one in page)


class Warnings:
    """Events whose warnings are kept: `texts`."""

    def __init__(self) -> None:
        self.events = Events()
        self.texts: list[str] = []
        self.events.subscribe(self._take)

    def _take(self, event: Event) -> None:
        if isinstance(event, Warned):
            self.texts.append(event.text)
