"""Registries that refuse an index some of whose children are missing."""

from __future__ import annotations

from collections.abc import Iterator

from replicator.errors import MissingReference, NotReplicated
from replicator.model.descriptor import Descriptor
from replicator.model.image import Image
from replicator.policy.platforms import platform_text
from replicator.ports import Repository


class SparseRefusals:
    """Platforms that one destination wants to have of every index, as it has shown.

    distribution 3 wants all of them, none, or those of a list (`validation.manifests.indexes`).
    """

    def __init__(self) -> None:
        self._required: set[str] = set()

    def check(self, image: Image, repository: Repository) -> None:
        """Raises `NotReplicated` if the destination is known to refuse the image, before any of it is sent."""
        for child in _left_out(image):
            if _name(child) in self._required:
                raise _refused(repository, child)

    def learn(self, image: Image, repository: Repository, error: MissingReference) -> None:
        """Raises `NotReplicated` if what the destination misses was left out on purpose."""
        left_out = list(_left_out(image))
        named = [child for child in left_out if child.digest in error.digests]
        if error.digests and len(named) < len(set(error.digests)):
            return  # something else is missing too, and may come with another attempt
        for child in named or left_out:
            self._required.add(_name(child))
        if left_out:
            raise _refused(repository, (named or left_out)[0]) from error


def check_whole(image: Image, repository: Repository) -> None:
    """Raises `NotReplicated` if children of an index stay behind, for a destination that takes no such index."""
    for child in _left_out(image):
        raise _refused(repository, child)


def is_sparse(image: Image) -> bool:
    """Whether children of an index of the image stay behind."""
    return any(manifest.left_out for manifest in image.manifests.values())


def _left_out(image: Image) -> Iterator[Descriptor]:
    for manifest in image.manifests.values():
        yield from manifest.left_out


def _name(child: Descriptor) -> str:
    return platform_text(child.platform) if child.platform else child.digest


def _refused(repository: Repository, child: Descriptor) -> NotReplicated:
    cause = (
        f'the registry refuses indexes without {_name(child)} (sparse indexes); set platform_mode = "rewrite", add the'
        " platform to the rule, or allow it there (distribution: validation.manifests.indexes.platforms = none)"
    )
    return NotReplicated(repository.site, "write manifest", cause, repository=repository.name)
