"""What `replicator check` finds at a store with a layout."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import cast

from replicator.errors import NotFound, SiteError
from replicator.ports import ObjectStore, Repository, SiteCheck
from replicator.sites.findings import MAX_REPOSITORIES, Findings


async def check_layout(
    store: ObjectStore,
    recognise: Callable[[], Awaitable[str]],
    repositories: Sequence[Repository],
    *,
    push: bool,
) -> SiteCheck:
    """Reaches the store and tries what a run would do. Never raises a `SiteError`.

    Args:
        store: what is checked.
        recognise: says in a few words what layout is there; raises `Unsupported` where it is another.
        repositories: some that must be readable; the first five are tried.
        push: whether to write (and delete) a small object, under a name that no layout has.
    """
    check = _Check(store.site)
    await check.attempt("reachable", lambda: _reach(store))
    if check.problems:
        return check.result()
    await check.attempt("layout", recognise)
    for repository in repositories[:MAX_REPOSITORIES]:
        await check.attempt(f"pull {repository.name}", lambda one=repository: _tags(one))  # type: ignore[misc]
    if push:
        await check.attempt("push", lambda: _write(store))
    else:
        check.found("push", "unknown until the first push")
    conditional = "yes" if store.conditional else "no: only one agent may write here at a time"
    check.found("conditional writes", conditional)
    return check.result()


class _Check(Findings):
    async def attempt(self, what: str, ask: Callable[[], Awaitable[str]]) -> None:
        """Notes the answer, or what is wrong."""
        try:
            self.found(what, await ask())
        except SiteError as error:
            self.failed(what, error)


async def _reach(store: ObjectStore) -> str:
    pages = cast("AsyncGenerator[object, None]", store.list("", delimiter=True))
    async with aclosing(pages):
        async for _ in pages:
            break
    return "yes"


async def _tags(repository: Repository) -> str:
    pages = cast("AsyncGenerator[Sequence[str], None]", repository.tags())
    async with aclosing(pages):
        async for page in pages:
            if page:
                return "yes"
    return "yes, no tags yet"


async def _write(store: ObjectStore) -> str:
    key = f"replicator-probe-{uuid.uuid4().hex}"
    try:
        await store.put(key, b"", if_absent=True)
        if await store.stat(key) is None:
            raise NotFound(store.site, f"read object {key}", "written, and not there")
    finally:
        await store.delete(key)
    return "yes"
