"""What is to be done about one tag at one destination."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from replicator.engine.observe.seen import UNTOLD, Seen
from replicator.engine.observe.wanted import WantedTag
from replicator.model.digest import Digest
from replicator.ports import Placement


class Action(msgspec.Struct):
    """Intent for one tag at one destination.

    `since` dates the change (epoch seconds). `asked_at` (monotonic seconds) and `asked_wall` (epoch seconds) are when
    the source was asked about the repository. `missing` are parts that the destination was found to lack;
    `was_placed`: the root had been put there before, so that something must have removed it. `placement`: what is
    remembered of the root there. `companions`: see `WantedTags`; `companion_state`: those of the root (see
    `TagBelief`). `digest` is the root at the destination, `source_digest` at the source (None: the same). `note` is what
    a reader of the plan should know beside the reason. `hold`: why this digest has been held so far, "" where it was not.
    `rests_on`: what the destination's tag was taken to name.
    """

    repository: str
    target: str
    wanted: WantedTag
    digest: Digest
    reason: str
    since: float
    asked_at: float
    asked_wall: float = 0.0
    attempts: int = 0
    missing: tuple[Digest, ...] = ()
    was_placed: bool = False
    placement: Placement | None = None
    companions: Mapping[str, Digest | None] | None = None
    companion_state: str = ""
    source_digest: Digest | None = None
    note: str = ""
    hold: str = ""
    rests_on: Seen = UNTOLD

    @property
    def source_root(self) -> Digest:
        """The digest at the source; another one where platforms are left out of an index."""
        return self.source_digest or self.digest

    @property
    def is_rewritten(self) -> bool:
        """Whether the destination gets a new index."""
        return self.source_root != self.digest

    @property
    def key(self) -> str:
        """The target tag, or the digest where it is wanted without one."""
        return self.wanted.target or self.digest
