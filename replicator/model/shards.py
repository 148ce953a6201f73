"""Parts of the repositories of a destination, so that several agents can look at one rule."""

from __future__ import annotations

import hashlib

import msgspec


class Shard(msgspec.Struct, frozen=True):
    """One of `count` parts, the one with this `index` (from 0): each repository is in exactly one of them.

    The name that counts is the one at the destination: source repositories that lead to one target are looked at
    together, whichever rule they belong to.
    """

    index: int
    count: int

    def has(self, repository: str) -> bool:
        """Whether a repository of the destination is in this part."""
        return shard_of(repository, self.count) == self.index

    def __str__(self) -> str:
        """For people, counted from 1: "3/64"."""
        return f"{self.index + 1}/{self.count}"


def shard_of(repository: str, count: int) -> int:
    """The index of the part that has the repository: the same in every process and release."""
    return int.from_bytes(hashlib.blake2b(repository.encode(), digest_size=8).digest()) % count
