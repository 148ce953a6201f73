"""Whether a registry takes Docker schema 1, found out with one manifest before its layers are sent in vain."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

from replicator.errors import MissingReference, Rejected, SiteError, Unavailable, Unsupported
from replicator.model.manifest import Kind, Manifest
from replicator.model.mediatypes import DOCKER_SCHEMA1_SIGNED
from replicator.sites.registry.context import Registry
from replicator.sites.registry.create import writing
from replicator.sites.registry.putting import put_call, told_digest
from replicator.sites.registry.refusals import is_unknown_error

_KEY = "schema1"


async def try_schema1(registry: Registry, repository: str, manifests: Collection[Manifest]) -> None:
    """Puts a signed manifest by its digest, once; notes in the registry's record if it cannot be there.

    Where the format is known, the answer is that the layers are missing (or they are there, and then so is the manifest).
    What has another digest there was hashed with its signatures, and could not be found by its own. distribution 2 takes no
    unsigned ones, and says so of the first that it meets.
    """
    signed = (
        one for one in manifests if one.media_type == DOCKER_SCHEMA1_SIGNED and one.kind is Kind.SCHEMA1
    )
    manifest = next(signed, None)
    async with registry.trying:
        if manifest is None or _KEY in registry.tried or not registry.knowledge.record.schema1:
            return
        registry.tried.add(_KEY)
        call = put_call(repository, manifest, manifest.digest)
        try:
            send = partial(registry.transport.request, call, once=True)
            told = told_digest(await writing(registry, repository, send))
        except MissingReference:
            return
        except SiteError as error:
            if _refuses(error):
                registry.knowledge.learn(schema1=False)
            return  # whatever else it is, the image itself will meet it
        if told not in {None, manifest.digest}:
            registry.knowledge.learn(schema1=False)


def _refuses(error: SiteError) -> bool:
    if isinstance(error, Rejected):
        return "MANIFEST_UNVERIFIED" not in error.codes  # this one's signatures alone are wrong
    return isinstance(error, Unsupported) or (isinstance(error, Unavailable) and is_unknown_error(error))
