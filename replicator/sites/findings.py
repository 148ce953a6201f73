"""What a check of a site finds, step by step."""

from __future__ import annotations

from typing import Final

from replicator.errors import SiteError
from replicator.ports import SiteCheck

MAX_REPOSITORIES: Final = 5
"""At most this many of the repositories that a check is given are tried."""


class Findings:
    """Answers in the order in which they were found, and what is wrong."""

    def __init__(self, site: str) -> None:
        self._site = site
        self._answers: list[tuple[str, str]] = []
        self.problems: list[str] = []

    def found(self, what: str, answer: str) -> None:
        """Notes an answer."""
        self._answers.append((what, answer))

    def failed(self, what: str, error: SiteError) -> None:
        """Notes that this does not work, which is a problem."""
        self.found(what, f"no: {error.cause}")
        self.problems.append(str(error))

    def result(self) -> SiteCheck:
        """All that was found."""
        return SiteCheck(self._site, tuple(self._answers), tuple(self.problems))
