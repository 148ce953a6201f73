"""Two sites side by side, without any rule."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from replicator.errors import NotFound, SiteError
from replicator.flow.parallel import each
from replicator.model.companion import is_companion
from replicator.model.digest import Digest
from replicator.ports import Repository, Site

REPOSITORIES_AT_ONCE: Final = 8

Kind = Literal["only_here", "only_there", "different"]


@dataclass(frozen=True, slots=True)
class Difference:
    """One tag that two sites do not hold alike. The digests are known where both were asked."""

    repository: str
    tag: str
    kind: Kind
    here: Digest | None = None
    there: Digest | None = None


@dataclass(frozen=True, slots=True)
class Compared:
    """One repository: how many tags are the same, which differ, and what could not be asked."""

    repository: str
    same: int
    differences: tuple[Difference, ...]
    failures: tuple[SiteError, ...] = ()


async def repositories_of(sites: Sequence[Site]) -> list[str]:
    """All repositories that any of the sites lists, sorted. Raises SiteError."""
    names: set[str] = set()
    for site in sites:
        async for page in site.repositories():
            names.update(page)
    return sorted(names)


async def compare_sites(here: Site, there: Site, names: Sequence[str]) -> AsyncIterator[Compared]:
    """Compares repositories, yielding each when it is done, in the order of the names.

    A tag at one site only is not resolved. What cannot be asked is a failure of its repository; the others go on.
    """
    slots = asyncio.Semaphore(REPOSITORIES_AT_ONCE)

    async def compare(name: str) -> Compared:
        async with slots:
            return await compare_repositories(here.repository(name), there.repository(name))

    async with asyncio.TaskGroup() as tasks:
        started = [tasks.create_task(compare(name)) for name in names]
        for task in started:
            yield await task


async def compare_repositories(here: Repository, there: Repository) -> Compared:
    """Compares one repository at both sites. Raises nothing of a site: see `Compared.failures`."""
    try:
        ours, theirs = await _tags(here), await _tags(there)
    except SiteError as error:
        return Compared(here.name, 0, (), (error,))
    differences = [Difference(here.name, tag, "only_here") for tag in ours - theirs]
    differences += [Difference(here.name, tag, "only_there") for tag in theirs - ours]
    failures: list[SiteError] = []
    same = 0

    async def compare(tag: str) -> None:
        nonlocal same
        try:
            pair = (await here.resolve(tag)).digest, (await there.resolve(tag)).digest
        except SiteError as error:
            failures.append(error.about(f"tag {tag}"))
            return
        if pair[0] == pair[1]:
            same += 1
        else:
            differences.append(Difference(here.name, tag, "different", *pair))

    await each(ours & theirs, compare)
    differences.sort(key=lambda one: one.tag)
    return Compared(here.name, same, tuple(differences), tuple(failures))


async def _tags(repository: Repository) -> set[str]:
    """The tags; empty if the repository does not exist, unless its absence is doubtful.

    Without those that belong to other images: what refers to an image is listed by each site in its own way.
    """
    try:
        return {tag async for page in repository.tags() for tag in page if not is_companion(tag)}
    except NotFound as error:
        if error.doubtful:
            raise
        return set()
