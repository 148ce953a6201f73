"""What may be decided about one tag at one destination. Pure facts: `decide` makes them, others act on them."""

from __future__ import annotations

import enum

import msgspec

from replicator.engine.plan.compare import Change
from replicator.engine.result import DecisionName
from replicator.errors import HoldKind
from replicator.model.digest import Digest


class Question(enum.Enum):
    """What can be asked before a decision.

    TAG: what the destination's tag names. CLOSURE: whether everything below the root is there. SOURCE: what the source
    names under an immutable tag that was believed to be settled. REFERRERS: whether what refers to the image at the source
    is there. PLATFORMS: what the rule's choice of platforms makes of the image.
    """

    TAG = "tag"
    CLOSURE = "closure"
    REFERRERS = "referrers"
    SOURCE = "source"
    PLATFORMS = "platforms"


class Copy(msgspec.Struct, frozen=True):
    """The image is to be copied: `digest`, because of `change`. `missing`: what a closure check did not find."""

    digest: Digest
    change: Change
    missing: tuple[Digest, ...] = ()


class InStep(msgspec.Struct, frozen=True):
    """The destination has what is wanted.

    `is_confirmed`: the destination said so now. `is_verified`: all that the root leads to was found now.
    `is_superseded`: by a run that asked the source later; nothing is to be recorded.
    """

    digest: Digest | None
    is_confirmed: bool = False
    is_verified: bool = False
    is_superseded: bool = False


class Postponed(msgspec.Struct, frozen=True):
    """The tag failed before and is not to be tried yet."""

    digest: Digest
    change: Change
    error: str


class Conflict(msgspec.Struct, frozen=True):
    """Another source or rule has a different digest for the tag."""

    digest: Digest
    change: Change
    other: str


class Held(msgspec.Struct, frozen=True):
    """The tag is left as it is on purpose."""

    reason: str
    kind: HoldKind


class Skipped(msgspec.Struct, frozen=True):
    """The rule leaves the tag out, as its image shows."""

    reason: str


class Gone(msgspec.Struct, frozen=True):
    """A tag that the rule once put there, that is still there, and that its source no longer has."""

    repository: str
    target: str
    tag: str
    digest: Digest


class Ask(msgspec.Struct, frozen=True):
    """Not enough is known. `digest` is the root that the question is about; None for the source."""

    question: Question
    digest: Digest | None


Decision = Copy | InStep | Postponed | Conflict | Held | Skipped | Gone | Ask


def told(decision: Decision) -> tuple[DecisionName, str, HoldKind | None] | None:
    """A decision about a wanted tag in words: its name, what is different or in the way, and of what kind a hold is.

    None for the others.
    """
    named: tuple[DecisionName, str, HoldKind | None] | None = None
    match decision:
        case Copy(change=change):
            named = "copy", change.value, None
        case InStep():
            named = "in step", Change.SAME.value, None
        case Postponed(error=error):
            named = "postponed", error, None
        case Conflict(other=other):
            named = "conflict", other, None
        case Held(reason=reason, kind=kind):
            named = "held", reason, kind
        case Skipped(reason=reason):
            named = "skipped", reason, None
        case _:
            pass
    return named
