"""No memory, for commands that need none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from replicator.model.digest import Digest
from replicator.ports import Entry, Listed, Pending, RunRow, Standing, TagBelief


class NoState:
    """`ports.State` that remembers nothing, but knows one thing from the start: a repository that has the blobs.

    Args:
        site: where that repository is.
        repository: which one; what it does not have after all only costs a refused mount.
    """

    def __init__(self, site: str, repository: str) -> None:
        self._site = site
        self._repository = repository

    async def beliefs(self, destination: str, repository: str) -> Mapping[str, TagBelief]:  # noqa: ARG002 - a port
        """None."""
        return {}

    async def pending(  # the port's parameters
        self,
        rule: str,  # noqa: ARG002
        destination: str,  # noqa: ARG002
        repository: str,  # noqa: ARG002
    ) -> Mapping[str, Pending]:
        """None."""
        return {}

    async def pending_repositories(self, rule: str, destination: str) -> frozenset[str]:  # noqa: ARG002 - a port
        """None."""
        return frozenset()

    async def knows_repository(self, site: str, repository: str) -> bool:
        """Only the one."""
        return (site, repository) == (self._site, self._repository)

    async def whereabouts(self, site: str, digests: Iterable[Digest]) -> Mapping[Digest, Sequence[str]]:
        """In the one repository, where it is at that site."""
        return dict.fromkeys(digests, (self._repository,)) if site == self._site else {}

    async def forget(self, site: str, repository: str, digests: Iterable[Digest]) -> None:
        """Nothing to forget."""

    async def created(self, digests: Iterable[Digest]) -> Mapping[Digest, float]:  # noqa: ARG002 - a port
        """None."""
        return {}

    async def listed(self, site: str, repository: str) -> Mapping[str, Listed]:  # noqa: ARG002 - a port
        """None."""
        return {}

    def begin(self, rule: str, destination: str) -> None:
        """Nothing to do."""

    def record(self, entry: Entry) -> None:
        """Nothing to do."""

    async def flush(self) -> None:
        """Nothing to do."""

    async def close_run(self, row: RunRow) -> Standing:
        """The run alone."""
        return Standing(
            row.rule,
            row.destination,
            first_seen=row.started_at,
            in_step=row.in_step,
            held=row.held,
            failed=row.failed,
            last_error=row.error,
        )

    async def standings(self, rules: Sequence[str] | None = None) -> Sequence[Standing]:  # noqa: ARG002 - a port
        """None."""
        return []

    async def aclose(self) -> None:
        """Nothing to do."""
