"""Tags by listing: one recursive listing has every tag's current link with its version."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

from replicator.errors import Advice, NotFound, SiteError
from replicator.events import Events, Warned
from replicator.flow.parallel import each
from replicator.model.names import is_tag
from replicator.ports import Listed, ObjectStore
from replicator.sites.layouts.distribution.links import read_link
from replicator.sites.layouts.distribution.paths import RepositoryPaths
from replicator.sites.layouts.errors import RepositoryErrors


async def tag_versions(
    store: ObjectStore, paths: RepositoryPaths, errors: RepositoryErrors, events: Events
) -> AsyncIterator[Sequence[tuple[str, str]]]:
    """Pages of (tag, version of its current link), each tag once.

    A folder without a current link is what a deletion left half done: a registry lists it and serves nothing of
    it; it is passed over with a warning.

    Raises:
        NotFound: the repository does not exist.
    """
    folders: set[str] = set()
    current: set[str] = set()
    async for page in store.list(paths.tags):
        found = []
        for one in page.objects:
            tag, is_current = paths.tag_of(one.key)
            if is_tag(tag):
                folders.add(tag)
                if is_current:
                    current.add(tag)
                    found.append((tag, one.version))
        if found:
            yield found
    if not folders and not await _exists(store, paths):
        raise errors.not_found("list tags", "repository not found")
    for tag in sorted(folders - current):
        text = f"{errors.repository}: tag {tag} has no current link (half deleted?); it is left out"
        events.emit(Warned(errors.site, text))


async def listed_tags(
    store: ObjectStore,
    paths: RepositoryPaths,
    errors: RepositoryErrors,
    events: Events,
    known: Mapping[str, Listed],
) -> AsyncIterator[Sequence[Listed]]:
    """Pages of tags with their digests; only links whose version is not the known one are read.

    Raises:
        NotFound: the repository does not exist.
        SiteError: of the first tag that could not be read, after all pages came.
    """
    failures: list[SiteError] = []

    async def read(changed: tuple[str, str]) -> Listed | None:
        tag, version = changed
        try:
            with errors.named():
                digest = await read_link(store, paths.current(tag), errors, f"tag {tag}")
        except NotFound:
            return None  # deleted since it was listed
        except SiteError as error:
            if error.advice is Advice.STOP_SITE:
                raise
            failures.append(error)
            return None
        return Listed(tag, digest, version)

    async for page in tag_versions(store, paths, errors, events):
        same = [known[tag] for tag, version in page if tag in known and known[tag].version == version]
        kept = {one.tag for one in same}
        read_now = await each([one for one in page if one[0] not in kept], read)
        yield same + [one for one in read_now if one is not None]
    if failures:
        raise failures[0]


async def _exists(store: ObjectStore, paths: RepositoryPaths) -> bool:
    async for page in store.list(paths.manifests, delimiter=True):
        if page.objects or page.prefixes:
            return True
    return False
