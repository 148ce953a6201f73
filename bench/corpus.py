"""The images that are copied: the same bytes on every machine, written straight into a registry's storage.

The storage layout is CNCF distribution's (its `registry/storage/paths.go`); a registry serves it as if pushed.
"""

from __future__ import annotations

import gzip
import io
import random
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from replicator.demo.images import BuiltImage, Layer, image
from replicator.model.digest import Digest, digest_of, encoded
from replicator.model.manifest import Manifest

ROOT = Path("docker/registry/v2")
MEGABYTE = 1_000_000


@dataclass(frozen=True, slots=True)
class Shape:
    """Images of one size: `repositories` x `tags`, each of the `shared` layers and `own` layers of its own.

    `sharing` says among whom the shared layers are shared: all images, or those of one repository.
    """

    name: str
    repositories: int
    tags: int
    shared: tuple[int, ...]
    own: tuple[int, ...]
    sharing: str = "all"


SMALL_SET = Shape("small-set", 5, 2, (8 * MEGABYTE,) * 3, (20 * MEGABYTE,) * 2)
"""10 images; 33 blobs: 3 layers that all share, 2 of each image's own, a config each; about 424 MB."""

LARGE_SET = Shape("large-set", 5, 2, (80 * MEGABYTE,) * 3, (200 * MEGABYTE,) * 2)
"""As `SMALL_SET`, with layers ten times as large: 4.2 GB, beside which the start-up does not count."""

MANY_SMALL = Shape("many-small", 20, 100, (8_000,), (2_000,), sharing="repository")
"""2,000 images of three blobs, one of them shared within the repository."""

FAR = Shape("far", 20, 50, (8_000,), (2_000,), sharing="repository")
"""1,000 images like those of `MANY_SMALL`."""


@dataclass(slots=True)
class Corpus:
    """What a storage was filled with: repository -> tag -> digest, and each distinct blob's size."""

    images: dict[str, dict[str, Digest]]
    blobs: dict[Digest, int]

    @property
    def unique_bytes(self) -> int:
        """Payload of all blobs, each counted once."""
        return sum(self.blobs.values())

    @property
    def tags(self) -> int:
        """How many tags there are."""
        return sum(map(len, self.images.values()))


def layer(seed: str, size: int) -> Layer:
    """A real layer of about `size` bytes: an uncompressed gzip of a tar with one file of noise.

    It has to be a real gzip: skopeo recompresses what does not look like one.
    """
    noise = random.Random(seed).randbytes(size)
    tarred = io.BytesIO()
    with tarfile.open(fileobj=tarred, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        entry = tarfile.TarInfo("noise")
        entry.size = size
        archive.addfile(entry, io.BytesIO(noise))
    body = tarred.getvalue()
    return Layer(gzip.compress(body, compresslevel=0, mtime=0), digest_of(body))


def build(shape: Shape) -> Iterator[tuple[str, str, BuiltImage]]:
    """Repository, tag and image, one after the other."""
    common = [layer(f"{shape.name}/{n}", size) for n, size in enumerate(shape.shared)]
    for number in range(shape.repositories):
        repository = f"bench/app-{number:02}"
        if shape.sharing == "repository":
            common = [layer(f"{repository}/{n}", size) for n, size in enumerate(shape.shared)]
        for version in range(shape.tags):
            seed = f"{shape.name}/{repository}/{version}"
            own = [layer(f"{seed}/{n}", size) for n, size in enumerate(shape.own)]
            yield repository, f"v1.{version}.0", image(seed, [*common, *own])


def fill(storage: Path, shape: Shape) -> Corpus:
    """Writes the images of a shape into an empty storage."""
    corpus = Corpus({}, {})
    for repository, tag, built in build(shape):
        corpus.blobs |= {digest: len(data) for digest, data in built.blobs.items()}
        put_blobs(storage, repository, built.blobs)
        put_manifest(storage, repository, built.manifest, tag)
        corpus.images.setdefault(repository, {})[tag] = built.digest
    return corpus


def put_blobs(storage: Path, repository: str, blobs: Mapping[Digest, bytes]) -> None:
    """Writes blobs into a repository."""
    layers = storage / ROOT / "repositories" / repository / "_layers/sha256"
    for digest, data in blobs.items():
        _write_blob(storage, digest, data)
        _link(layers / encoded(digest), digest)


def put_manifest(storage: Path, repository: str, manifest: Manifest, tag: str) -> None:
    """Writes a manifest into a repository, and tags it."""
    manifests = storage / ROOT / "repositories" / repository / "_manifests"
    _write_blob(storage, manifest.digest, manifest.body)
    _link(manifests / "revisions/sha256" / encoded(manifest.digest), manifest.digest)
    _link(manifests / "tags" / tag / "index/sha256" / encoded(manifest.digest), manifest.digest)
    _link(manifests / "tags" / tag / "current", manifest.digest)


def shortcomings(storage: Path, corpus: Corpus) -> list[str]:
    """What a destination's storage lacks of the corpus, tag by tag and blob by blob; empty if nothing."""
    found = []
    for repository, tags in corpus.images.items():
        for tag, digest in tags.items():
            link = storage / ROOT / "repositories" / repository / "_manifests/tags" / tag / "current/link"
            at = link.read_text() if link.exists() else "nothing"
            if at != digest:
                found.append(f"{repository}:{tag} is {at}, not {digest}")
    for digest, size in corpus.blobs.items():
        path = blob_path(storage, digest)
        if not path.exists() or path.stat().st_size != size:
            found.append(f"{digest} is not there in its size")
    return found


def blob_path(storage: Path, digest: Digest) -> Path:
    """Where the bytes of a blob or manifest lie."""
    return storage / ROOT / "blobs/sha256" / encoded(digest)[:2] / encoded(digest) / "data"


def _write_blob(storage: Path, digest: Digest, data: bytes) -> None:
    path = blob_path(storage, digest)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _link(folder: Path, digest: Digest) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "link").write_text(digest)
