"""Who wants which target in this run: two sources for one tag must not take turns."""

from __future__ import annotations

from replicator.model.digest import Digest


class Claims:
    """Targets of a run, each with the first that claimed it."""

    def __init__(self) -> None:
        self._claims: dict[tuple[str, str], dict[str, tuple[str, Digest]]] = {}

    def claim(self, place: tuple[str, str], tag: str, claimant: str, digest: Digest) -> str | None:
        """Claims a tag of (destination, repository) for a digest.

        Returns:
            None where it may be written, else the claimant that came first with another digest.
        """
        first, claimed = self._claims.setdefault(place, {}).setdefault(tag, (claimant, digest))
        return None if claimed == digest else first
