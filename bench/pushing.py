"""Fills a registry over the wire, and checks one: for registries whose storage cannot be written or read directly."""

from __future__ import annotations

import aiohttp

from bench.corpus import Corpus, Shape, build
from bench.servers import Endpoint
from replicator.demo.images import BuiltImage
from replicator.flow.parallel import each
from replicator.model.digest import Digest
from replicator.model.mediatypes import OCI_MANIFEST

AT_ONCE = 32
LIMIT_SECONDS = 60

_Tagged = tuple[str, str, Digest]
"""Repository, tag, digest."""


async def push(endpoint: Endpoint, shape: Shape) -> Corpus:
    """Pushes the images of a shape. Raises `aiohttp.ClientResponseError` where the registry refuses something."""
    images = list(build(shape))
    corpus = Corpus({}, {})
    blobs: dict[tuple[str, Digest], bytes] = {}
    for repository, tag, built in images:
        corpus.images.setdefault(repository, {})[tag] = built.digest
        for digest, data in built.blobs.items():
            corpus.blobs[digest] = len(data)
            blobs[repository, digest] = data
    async with _session(endpoint, raises=True) as session:

        async def put_blob(place: tuple[str, Digest]) -> None:
            await _put_blob(session, *place, blobs[place])

        async def put_manifest(image: tuple[str, str, BuiltImage]) -> None:
            repository, tag, built = image
            headers = {"Content-Type": built.manifest.media_type}
            path = f"/v2/{repository}/manifests/{tag}"
            async with session.put(path, data=built.manifest.body, headers=headers):
                pass

        await each(list(blobs), put_blob, width=AT_ONCE)
        await each(images, put_manifest, width=AT_ONCE)
    return corpus


async def _put_blob(session: aiohttp.ClientSession, repository: str, digest: Digest, data: bytes) -> None:
    async with session.post(f"/v2/{repository}/blobs/uploads/") as opened:
        location = opened.headers["Location"]
    joined = "&" if "?" in location else "?"
    headers = {"Content-Type": "application/octet-stream"}
    async with session.put(f"{location}{joined}digest={digest}", data=data, headers=headers):
        pass


async def shortcomings(endpoint: Endpoint, corpus: Corpus) -> list[str]:
    """Tags of the corpus that are not at the registry as they should be; empty if all are.

    A registry takes no manifest whose blobs it lacks, so these are not asked for.
    """
    found: list[str] = []
    async with _session(endpoint, raises=False) as session:

        async def check(one: _Tagged) -> None:
            repository, tag, digest = one
            path = f"/v2/{repository}/manifests/{tag}"
            async with session.head(path, headers={"Accept": OCI_MANIFEST}) as answer:
                at = answer.headers.get("Docker-Content-Digest", f"HTTP {answer.status}")
            if at != digest:
                found.append(f"{repository}:{tag} is {at}, not {digest}")

        tagged = [(name, tag, digest) for name, tags in corpus.images.items() for tag, digest in tags.items()]
        await each(tagged, check, width=AT_ONCE)
    return found


def _session(endpoint: Endpoint, *, raises: bool) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        endpoint.url, raise_for_status=raises, timeout=aiohttp.ClientTimeout(total=LIMIT_SECONDS)
    )
