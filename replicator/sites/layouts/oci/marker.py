"""`oci-layout`: the file that makes a folder a layout and tells its version."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from replicator.errors import NotFound
from replicator.model.decoding import JSON_ERRORS
from replicator.ports import ObjectStore
from replicator.sites.bounds import MAX_MARKER_BYTES
from replicator.sites.layouts.errors import RepositoryErrors

VERSION: Final = "1.0.0"
_BODY: Final = msgspec.json.encode({"imageLayoutVersion": VERSION})


class _Content(msgspec.Struct, rename="camel"):
    image_layout_version: str


class Marker:
    """The marker of one layout."""

    def __init__(self, store: ObjectStore, key: str, errors: RepositoryErrors) -> None:
        self._store = store
        self._key = key
        self._errors = errors
        self._seen = False
        self._lock = asyncio.Lock()

    async def require(self) -> None:
        """Makes sure that there is one, of a supported version; reads it once.

        Raises:
            Corrupt: it does not exist or cannot be parsed.
            Unsupported: a newer layout.
        """
        async with self._lock:
            if not self._seen and not await self._look():
                raise self._errors.corrupt(
                    "read layout", f"{self._key} is missing: this is not an OCI layout"
                )
            self._seen = True

    async def make(self) -> None:
        """Writes it if it does not exist. Raises as `require` for an existing one."""
        if not await self._look():
            await self._store.put(self._key, _BODY, if_absent=True)
        self._seen = True

    async def _look(self) -> bool:
        try:
            data, _ = await self._store.get(self._key, MAX_MARKER_BYTES)
        except NotFound:
            return False
        try:
            version = msgspec.json.decode(data, type=_Content).image_layout_version
        except JSON_ERRORS as error:
            raise self._errors.corrupt("read layout", f"{self._key} is not valid: {error}") from error
        if version != VERSION:
            cause = f"{self._key} has version {version!r}; only {VERSION} is supported"
            raise self._errors.unsupported("read layout", cause)
        return True
