"""The config of an image, read for a decision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from replicator.engine.content.source import SourceContent
from replicator.model.manifest import Manifest

MAX_CONFIG_BYTES: Final = 8 * 1024 * 1024


async def read_config(
    content: SourceContent, repository: str, manifest: Manifest, mirrors: Sequence[str]
) -> bytes | None:
    """The config's bytes, verified; None without a config of at most `MAX_CONFIG_BYTES`. Raises SiteError."""
    config = manifest.config
    if config is None or config.size is None or config.size > MAX_CONFIG_BYTES:
        return None
    body = bytearray()
    async with content.direct(repository, config, mirrors, ignore).open() as chunks:
        async for chunk in chunks:
            body += chunk
    return bytes(body)


def ignore(_: int) -> None:
    """Reads for a decision are counted by events, not for one destination."""
