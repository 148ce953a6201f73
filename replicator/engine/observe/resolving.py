"""What many tags of a source repository name, asked for side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Final

from replicator.engine.faults import faults
from replicator.errors import SiteError
from replicator.flow.breaker import Breaker
from replicator.model.digest import Digest
from replicator.ports import ComparesTags, Repository

RESOLVES_AT_ONCE: Final = 128
"""Of one repository; the site's own limits narrow it."""


async def resolve_tags(
    breaker: Breaker,
    repository: Repository,
    tags: Collection[str],
    on_answer: Callable[[str, Digest], None],
    on_failure: Callable[[str, SiteError], None],
    *,
    turns: asyncio.Semaphore,
    before: Mapping[str, Digest] = MappingProxyType({}),
) -> None:
    """Tells what the tags name now, as the answers come.

    Args:
        breaker: of the source.
        repository: at the source.
        tags: which.
        on_answer: told a tag and its digest.
        on_failure: told a tag and why its digest is not known; `NotFound` where it does not exist.
        turns: one is taken for each tag, so that all who share it bound together how many are asked for at once.
        before: what tags are believed to name still, which is cheaper to confirm.
    """
    waiting = iter(tags)
    comparing = repository if isinstance(repository, ComparesTags) else None

    async def ask_one(tag: str) -> Digest:
        known = before.get(tag)
        if comparing is None or known is None:
            return (await repository.resolve(tag)).digest
        changed = await comparing.changed(tag, known)
        return known if changed is None else changed.digest

    async def ask() -> None:
        for tag in waiting:
            try:
                breaker.check("resolve tag", repository.name)
                with faults(repository.site, "resolve tag", repository.name):
                    async with turns:
                        digest = await ask_one(tag)
            except SiteError as error:
                on_failure(tag, error.about(f"tag {tag}"))
            else:
                breaker.succeeded()
                on_answer(tag, digest)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(RESOLVES_AT_ONCE, len(tags))):
            group.create_task(ask())
