"""What an explanation starts from: what is remembered, planned and, if the sites were asked, answered."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from replicator.engine.plan.remembered import Memory
from replicator.engine.result import ActionResult, Failure, TagDecision
from replicator.policy.rule import ImageSet, Rule
from replicator.ports import Unit


@dataclass(frozen=True, slots=True)
class Fresh:
    """What the sites answered now.

    `tags`: the names that were selected from, with `created` (epoch seconds) where ages matter; None where the source
    repository could not be looked at. `row`: what a plan says of the tag.
    """

    tags: Collection[str] | None
    created: Mapping[str, float] | None = None
    decision: TagDecision | None = None
    row: ActionResult | None = None
    failures: Sequence[Failure] = ()


@dataclass(frozen=True, slots=True)
class Agenda:
    """What a running agent has planned for a rule at a destination; times in epoch seconds.

    `failures`: runs that failed there in a row, for which `backing_off` is set.
    """

    paused: bool = False
    next_run: float | None = None
    backing_off: float | None = None
    failures: int = 0


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the tag at the destination.

    `images`: what the rule's lists name. `served`: this agent replicates there. `unit`: the source repository, as last
    scanned, and `last_error` what failed there last. `fresh` None: the sites were not asked.
    """

    now: float
    rules: Mapping[str, Rule]
    memory: Memory = field(default_factory=Memory)
    unit: Unit | None = None
    last_error: str = ""
    images: ImageSet | None = None
    served: bool = True
    agenda: Agenda = Agenda()
    fresh: Fresh | None = None
