"""The inventory of a site: every blob it has, so that an export for it can leave those out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import IO, Final

import msgspec

from replicator.errors import ConfigError, SiteError
from replicator.model.digest import Digest, is_digest
from replicator.model.image import read_image
from replicator.model.manifest import Manifest
from replicator.ports import ListsBlobs, Repository, Site

HEADER: Final = "# replicator inventory 1: DIGEST SIZE of each blob"
_AT_ONCE: Final = 16
_MAX_LINE: Final = 200
_MAX_BLOBS: Final = 50_000_000

Held = tuple[str | None, Sequence[tuple[Digest, int]]]
"""A repository (None: whichever is asked), and some of the blobs that it has, with their sizes."""


async def held(site: Site, on_failure: Callable[[SiteError], None]) -> AsyncIterator[Held]:
    """What a site has: by listing where it can, else by walking its tags.

    Args:
        site: the site.
        on_failure: told what could not be looked at; what is below it is left out then, which costs only bytes.

    Raises:
        SiteError: it cannot be listed.
    """
    if isinstance(site, ListsBlobs):
        async for page in site.blobs():
            yield page
        return
    async for names in site.repositories():
        for name in names:
            repository = site.repository(name)
            try:
                tags = [tag async for page in repository.tags() for tag in page]
            except SiteError as error:
                on_failure(error)
                continue
            yield name, await _below(repository, tags, on_failure)


async def _below(
    repository: Repository, tags: Iterable[str], on_failure: Callable[[SiteError], None]
) -> Sequence[tuple[Digest, int]]:
    found: dict[Digest, int] = {}
    slots = asyncio.Semaphore(_AT_ONCE)
    read: dict[Digest, Manifest] = {}

    async def once(digest: Digest) -> Manifest:
        if digest not in read:
            # Without the body: only what it names is wanted.
            read[digest] = msgspec.structs.replace(await repository.read_manifest(digest), body=b"")
        return read[digest]

    async def walk(tag: str) -> None:
        async with slots:
            try:
                root = (await repository.resolve(tag)).digest
                image = await read_image(root, once, repository.site, repository.name)
            except SiteError as error:
                on_failure(error)
                return
        found.update({digest: blob.size for digest, blob in image.blobs.items() if blob.size is not None})

    async with asyncio.TaskGroup() as group:
        for tag in tags:
            group.create_task(walk(tag))
    return list(found.items())


def read_inventory(file: IO[str], name: str) -> dict[Digest, int]:
    """The blobs of an inventory, with their sizes. Raises ConfigError for a file that is none."""
    if file.readline(_MAX_LINE).rstrip("\n") != HEADER:
        raise ConfigError([f"{name}: not an inventory: the first line is not {HEADER!r}"])
    blobs: dict[Digest, int] = {}
    number = 1
    while line := file.readline(_MAX_LINE):
        number += 1
        digest, _, size = line.rstrip("\n").partition(" ")
        if not (is_digest(digest) and size.isascii() and size.isdigit()) or number > _MAX_BLOBS:
            raise ConfigError([f"{name}: line {number}: expected a digest and a size, not {line[:80]!r}"])
        blobs[Digest(digest)] = int(size)
    return blobs
