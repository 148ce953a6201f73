"""Finding repositories by walking folders, never by listing every object."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

from replicator.errors import Corrupt
from replicator.events import Events, Warned
from replicator.flow.parallel import each
from replicator.model.names import is_repository
from replicator.ports import ObjectStore
from replicator.sites.bounds import MAX_NAMES

PAGE: Final = 1_000


@dataclass(frozen=True, slots=True)
class Folder:
    """What lies right below one folder: names of objects and of folders."""

    objects: Collection[str]
    folders: Collection[str]


async def look_into(store: ObjectStore, prefix: str) -> Folder:
    """One level of a store; `prefix` is "" or ends in "/". Raises `Corrupt` for more than `MAX_NAMES` entries."""
    objects: set[str] = set()
    folders: set[str] = set()
    async for page in store.list(prefix, delimiter=True):
        objects.update(one.key.removeprefix(prefix) for one in page.objects)
        folders.update(one.removeprefix(prefix) for one in page.prefixes)
        if len(objects) + len(folders) > MAX_NAMES:
            cause = f"the folder {prefix or '/'} has more than {MAX_NAMES} entries"
            raise Corrupt(store.site, "list repositories", cause)
    return Folder(objects, folders)


async def walk_repositories(
    store: ObjectStore,
    root: str,
    *,
    marks: Callable[[Folder], bool],
    reserved: Callable[[str], bool],
    events: Events,
) -> AsyncIterator[Sequence[str]]:
    """Pages of repository names below `root` ("" or ending in "/").

    Args:
        store: what is walked.
        root: where the names begin.
        marks: whether a folder of such content is a repository.
        reserved: which folders belong to the layout and are not walked.
        events: is warned of folders that cannot be part of a repository's name.
    """

    async def look(name: str) -> tuple[str, Folder]:
        return name, await look_into(store, f"{root}{name}/" if name else root)

    level = [""]
    while level:
        looked = await each(level, look)
        names = sorted(name for name, folder in looked if name and marks(folder))
        for start in range(0, len(names), PAGE):
            yield names[start : start + PAGE]
        level = []
        for name, folder in looked:
            for below in sorted(folder.folders):
                if reserved(below):
                    continue
                deeper = f"{name}/{below}" if name else below
                if is_repository(deeper):
                    level.append(deeper)
                else:
                    events.emit(
                        Warned(store.site, f"skipped the directory {deeper!r}: not a valid repository name")
                    )
