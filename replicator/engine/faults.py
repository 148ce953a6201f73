"""What nobody foresaw: it becomes a failure of the thing at hand, so that its neighbours go on."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from replicator.errors import Advice, AuthFailed, Denied, OwnershipLostError, SiteError, StateError

_log = logging.getLogger(__name__)


class Fault(SiteError):
    """A fault of ours while we worked with a site."""

    reason = "internal"


def is_unreadable(error: SiteError) -> bool:
    """Whether a site refuses to show something, which decides nothing about writing it.

    Quay, GHCR, GitLab and Artifactory refuse so to show what does not exist yet; Harbor what its policies keep from
    being pulled; others whatever a push-only account asks for.
    """
    return isinstance(error, (Denied, AuthFailed)) and error.advice is not Advice.STOP_SITE


@contextmanager
def faults(site: str, operation: str, repository: str | None = None) -> Iterator[None]:
    """Logs an unexpected exception with its traceback and raises a `Fault` instead; see `SiteError` for the arguments.

    Errors of a site pass, and so do a `StateError` and an `OwnershipLostError`, out of the group of a task group where they have to.
    """
    try:
        yield
    except (SiteError, StateError, OwnershipLostError):
        raise
    except Exception as error:
        lost = error.subgroup((StateError, OwnershipLostError)) if isinstance(error, ExceptionGroup) else None
        if lost is not None:
            raise _innermost(lost) from error
        _log.exception("%s: %s: %s: unexpected error", site, repository, operation)
        cause = _innermost(error)
        what = f"unexpected {type(cause).__name__}: {cause}"
        raise Fault(site, operation, what, repository=repository) from error


def _innermost(error: Exception) -> Exception:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
