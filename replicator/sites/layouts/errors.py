"""Errors of one repository in a layout: stores know the site and the key, layouts the repository."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from replicator.errors import Corrupt, NotFound, Rejected, SiteError, Unsupported


@dataclass(frozen=True, slots=True)
class RepositoryErrors:
    """Makes errors that name a site and its repository."""

    site: str
    repository: str

    def not_found(self, operation: str, cause: str) -> NotFound:
        """The object does not exist."""
        return NotFound(self.site, operation, cause, repository=self.repository)

    def corrupt(self, operation: str, cause: str) -> Corrupt:
        """It is not what it should be."""
        return Corrupt(self.site, operation, cause, repository=self.repository)

    def rejected(self, operation: str, cause: str) -> Rejected:
        """It cannot be asked of this site."""
        return Rejected(self.site, operation, cause, repository=self.repository)

    def unsupported(self, operation: str, cause: str) -> Unsupported:
        """The layout has no room for it."""
        return Unsupported(self.site, operation, cause, repository=self.repository)

    @contextmanager
    def named(self) -> Iterator[None]:
        """Adds the repository to errors of this site that pass through without one."""
        try:
            yield
        except SiteError as error:
            if error.repository is None and error.site == self.site:
                error.repository = self.repository
                error.args = (f"{self.site}: {self.repository}: {error.operation}: {error.cause}",)
            raise
