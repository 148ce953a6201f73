"""Every error that crosses a boundary inside replicator, and what to do about each.

What to do is data on the error (`Advice`), set where the protocol is known (an adapter) and read by
`flow.retry` and the engine alone. Messages name site, repository and operation, so that one line of a
report is enough to act on.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import ClassVar, Self

from replicator.scrub import one_line, scrub


class Advice(enum.Enum):
    """What the place that knows the protocol says about trying again."""

    RETRY = "retry"
    """The same request may well succeed in a moment."""
    LATER = "later"
    """Not in this run; a later one may."""
    GIVE_UP = "give_up"
    """Only a change at the site or in the config helps."""
    STOP_SITE = "stop_site"
    """Every further request to this site will fail alike in this run."""


class HoldKind(enum.StrEnum):
    """Why a tag is held: what would have to change for it to be copied."""

    ARCHIVED = "archived"
    """The source or the destination has archived the image."""
    IMMUTABLE = "immutable"
    """The destination does not let the tag be moved."""
    PLATFORMS = "platforms"
    """The image lacks platforms that the rule names."""
    REFERRERS = "referrers"
    """The image lacks referrers that the rule requires."""
    FILTERED = "filtered"
    """The rule's own filter leaves out referrers that it requires."""
    SIGNATURES = "signatures"
    """The image lacks signatures that the rule demands."""
    CONTENT = "content"
    """The image is of a kind that is not replicated there."""

    @property
    def may_end_soon(self) -> bool:
        """Whether more referrers of the same image may end it."""
        return self in {HoldKind.REFERRERS, HoldKind.FILTERED, HoldKind.SIGNATURES}


class ReplicatorError(Exception):
    """Root of all errors that replicator raises on purpose."""


class ConfigError(ReplicatorError):
    """The config cannot be used. Carries all problems at once, each with file, key path and what would be right."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class StateError(ReplicatorError):
    """The state cannot be used: corrupt, newer than this program, or not to be opened."""


class StateInUse(StateError):
    """Another process holds the state or one of the rules. `pid` is None where the kernel does not tell."""

    def __init__(self, message: str, *, pid: int | None = None) -> None:
        super().__init__(message)
        self.pid = pid


class OwnershipLostError(ReplicatorError):
    """Another agent may have taken over what a run works on, so the run writes nothing more."""


class SiteError(ReplicatorError):
    """Something at one site went wrong.

    Args:
        site: name of the site as configured.
        operation: what was tried, a short verb phrase ("read blob", "list tags").
        cause: what happened. It may quote the other side: like `operation` it is scrubbed, so that what is kept is one
            line, of bounded length and free of secrets.
        repository: repository at that site, None for operations on the whole site.
        advice: overrides the class's own advice.
    """

    reason: ClassVar[str] = "error"
    default_advice: ClassVar[Advice] = Advice.LATER
    needed = ""
    """The right that is missing; "" where it is not known, or is not what is missing."""

    def __init__(
        self,
        site: str,
        operation: str,
        cause: str,
        *,
        repository: str | None = None,
        advice: Advice | None = None,
    ) -> None:
        operation, cause = scrub(operation), scrub(cause)
        repository = repository and one_line(repository)
        where = f"{site}: {repository}" if repository else site
        super().__init__(f"{where}: {operation}: {cause}")
        self.site = site
        self.operation = operation
        self.cause = cause
        self.repository = repository
        self.advice = advice or self.default_advice

    def about(self, subject: str) -> Self:
        """The same error, its cause beginning with what it is about ("tag v1")."""
        return self._twin(cause=f"{subject}: {self.cause}")

    def needing(self, right: str) -> Self:
        """The same error, its cause ending with the right that is missing; as it is where it names one already."""
        if self.needed or not right:
            return self
        return self._twin(cause=f"{self.cause}; needed: {right}", needed=right)

    def during(self, operation: str, repository: str | None) -> Self:
        """The same error, met by that operation."""
        return self._twin(operation=operation, repository=repository)

    def _twin(self, **changes: str | None) -> Self:
        twin = type(self).__new__(type(self))
        twin.__dict__.update(self.__dict__, **{key: value and scrub(value) for key, value in changes.items()})
        where = f"{twin.site}: {twin.repository}" if twin.repository else twin.site
        twin.args = (f"{where}: {twin.operation}: {twin.cause}",)
        twin.__cause__ = self
        return twin


class NotFound(SiteError):
    """The object does not exist, or is not visible to us.

    `doubtful`: the answer may come from a proxy, not from the site. `codes` are the registry's own error codes.
    """

    reason = "not_found"
    default_advice = Advice.LATER

    def __init__(
        self,
        site: str,
        operation: str,
        cause: str,
        *,
        repository: str | None = None,
        advice: Advice | None = None,
        doubtful: bool = False,
        codes: Sequence[str] = (),
    ) -> None:
        super().__init__(site, operation, cause, repository=repository, advice=advice)
        self.doubtful = doubtful
        self.codes = tuple(codes)


class Denied(SiteError):
    """Credentials are good but do not allow this."""

    reason = "denied"
    default_advice = Advice.GIVE_UP


class AuthFailed(SiteError):
    """Credentials are missing, wrong or refused."""

    reason = "auth"
    default_advice = Advice.STOP_SITE


class Transient(SiteError):
    """What passes by itself, as a rule. `retry_after` in seconds, None where the site did not say."""

    default_advice = Advice.RETRY

    def __init__(
        self,
        site: str,
        operation: str,
        cause: str,
        *,
        repository: str | None = None,
        advice: Advice | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(site, operation, cause, repository=repository, advice=advice)
        self.retry_after = retry_after


class Throttled(Transient):
    """The site asks us to slow down."""

    reason = "throttled"


class Unavailable(Transient):
    """No answer, a broken connection, or a server's own failure. `answered`: the site is alive, it said so itself (5xx)."""

    reason = "unavailable"

    def __init__(
        self,
        site: str,
        operation: str,
        cause: str,
        *,
        repository: str | None = None,
        advice: Advice | None = None,
        retry_after: float | None = None,
        answered: bool = False,
    ) -> None:
        super().__init__(
            site, operation, cause, repository=repository, advice=advice, retry_after=retry_after
        )
        self.answered = answered


class Overloaded(Unavailable):
    """The server says that it has too much to do (503): the request was not taken."""


class TooSlow(Unavailable):
    """The site sends, but slower than it has to (`timeouts.minimum_rate`)."""


class Rejected(SiteError):
    """The site understood and refuses. `codes` are the registry's own error codes; `status` the HTTP status."""

    reason = "rejected"
    default_advice = Advice.GIVE_UP

    def __init__(
        self,
        site: str,
        operation: str,
        cause: str,
        *,
        repository: str | None = None,
        advice: Advice | None = None,
        codes: Sequence[str] = (),
        status: int | None = None,
    ) -> None:
        super().__init__(site, operation, cause, repository=repository, advice=advice)
        self.codes = tuple(codes)
        self.status = status


class Corrupt(SiteError):
    """Content is not what its digest, size or type says."""

    reason = "corrupt"
    default_advice = Advice.LATER


class Unsupported(SiteError):
    """The site cannot do this at all."""

    reason = "unsupported"
    default_advice = Advice.GIVE_UP


class NotReplicated(Unsupported):
    """An image of a kind that is not replicated on purpose: it is held, not failed."""

    reason = "held"
    hold: ClassVar[HoldKind] = HoldKind.CONTENT


class Immutable(NotReplicated):
    """The tag may not be moved there: it keeps what it names."""

    hold = HoldKind.IMMUTABLE


class TagMoved(SiteError):
    """Somebody else moved the tag at the destination after it was decided what to put there.

    `present`: the digest that it names now, None where it is gone.
    """

    reason = "moved"

    def __init__(
        self,
        site: str,
        operation: str,
        cause: str,
        *,
        repository: str | None = None,
        advice: Advice | None = None,
        present: str | None = None,
    ) -> None:
        super().__init__(site, operation, cause, repository=repository, advice=advice)
        self.present = present


class Untrusted(SiteError):
    """The image lacks what the rule demands to refer to it: it is held until that arrives. `hold`: signatures, or referrers."""

    reason = "untrusted"

    def __init__(
        self,
        site: str,
        operation: str,
        cause: str,
        *,
        repository: str | None = None,
        advice: Advice | None = None,
        hold: HoldKind = HoldKind.SIGNATURES,
    ) -> None:
        super().__init__(site, operation, cause, repository=repository, advice=advice)
        self.hold = hold


class MissingReference(SiteError):
    """A manifest was refused because content that it refers to is missing. `digests`: the missing ones, if known."""

    reason = "missing_reference"
    default_advice = Advice.LATER

    def __init__(
        self,
        site: str,
        operation: str,
        cause: str,
        *,
        repository: str | None = None,
        advice: Advice | None = None,
        digests: Sequence[str] = (),
    ) -> None:
        super().__init__(site, operation, cause, repository=repository, advice=advice)
        self.digests = tuple(digests)
