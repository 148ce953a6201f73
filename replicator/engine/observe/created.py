"""When images were created, by their own config: one read an image, ever."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

import msgspec

from replicator.engine.content.config import ignore, read_config
from replicator.engine.content.source import SourceContent
from replicator.errors import SiteError
from replicator.flow.parallel import each
from replicator.model.decoding import JSON_ERRORS
from replicator.model.digest import Digest
from replicator.model.manifest import Kind
from replicator.ports import Created, Repository, State

READS_AT_ONCE: Final = 16


class _Config(msgspec.Struct):
    created: str | None = None


async def creation_times(
    state: State,
    content: SourceContent,
    repository: Repository,
    digests: Iterable[Digest],
    mirrors: tuple[str, ...],
    *,
    record: bool,
) -> dict[Digest, float]:
    """Creation times (epoch seconds) of images by root digest, an index's being that of its first image.

    What the state knows is not read again; `record` False leaves it alone. An image that cannot be read or does not
    say is left out.
    """
    wanted = set(digests)
    times = dict(await state.created(wanted))

    async def read(digest: Digest) -> None:
        try:
            at = await _created(content, repository, digest, mirrors)
        except SiteError as error:
            content.warn(f"creation time unknown: {error}")
            return
        if at is not None:
            times[digest] = at
            if record:
                state.record(Created(digest, at))

    await each(wanted - times.keys(), read, width=READS_AT_ONCE)
    return times


async def _created(
    content: SourceContent, repository: Repository, digest: Digest, mirrors: tuple[str, ...]
) -> float | None:
    manifest = await content.manifest(repository.name, digest, mirrors, ignore)
    if manifest.kind is Kind.INDEX and manifest.children:
        manifest = await content.manifest(repository.name, manifest.children[0].digest, mirrors, ignore)
    config = await read_config(content, repository.name, manifest, mirrors)
    return None if config is None else parse_created(config)


def parse_created(config: bytes) -> float | None:
    """The `created` of an image config in epoch seconds, None where it has none that can be read."""
    try:
        text = msgspec.json.decode(config, type=_Config).created
        if not text:
            return None
        moment = datetime.fromisoformat(text)
    except (*JSON_ERRORS, ValueError):
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
