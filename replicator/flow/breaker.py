"""Knowing when a site is lost for this run."""

from __future__ import annotations

from typing import Final

from replicator.errors import Advice, SiteError, Unavailable

DEFAULT_THRESHOLD: Final = 10


class Breaker:
    """Remembers, for one site and one run, that further requests are pointless.

    Opens, for good, on an error that advises STOP_SITE, or when the site did not answer `threshold` times in a row, after
    all retries. Any error that the site itself sent is an answer, a 500 too: it is alive, and the count starts again.
    """

    def __init__(self, site: str, threshold: int = DEFAULT_THRESHOLD) -> None:
        self._site = site
        self._threshold = threshold
        self._silent = 0
        self._cause: SiteError | None = None

    @property
    def cause(self) -> SiteError | None:
        """The error that opened it, None while it is closed."""
        return self._cause

    def check(self, operation: str | None = None, repository: str | None = None) -> None:
        """Does nothing while closed.

        Args:
            operation: what is not going to be tried, for the message; by default what failed then.
            repository: where it is not going to be tried.

        Raises:
            SiteError: of the remembered error's class, saying "not tried: " and why, advising STOP_SITE.
        """
        cause = self._cause
        if cause is None:
            return
        if operation is None or operation == cause.operation:
            why = cause.cause
        else:
            why = f"{cause.operation}: {cause.cause}"
        raise type(cause)(
            self._site,
            operation or cause.operation,
            f"not tried: {why}",
            repository=repository,
            advice=Advice.STOP_SITE,
        ) from cause

    def failed(self, error: SiteError) -> None:
        """Takes an error that outlived its retries. Another site's error (a source that broke) is not counted."""
        if error.site != self._site or self._cause is not None:
            return
        is_silent = isinstance(error, Unavailable) and not error.answered
        self._silent = self._silent + 1 if is_silent else 0
        if error.advice is Advice.STOP_SITE or self._silent >= self._threshold:
            self._cause = error

    def succeeded(self) -> None:
        """Tells that a request went well: the count of failures in a row starts again."""
        self._silent = 0
