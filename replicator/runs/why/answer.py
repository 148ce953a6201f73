"""The answer to "why is this tag not there?", the same in the command's JSON and in the API."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

Verdict = Literal["in step", "behind", "held", "conflict", "not selected", "unknown"]
StepVerdict = Literal["pass", "stop", "note"]


class Step(msgspec.Struct, frozen=True):
    """One thing that a run looks at, in its order.

    `verdict`: it lets the tag through (`pass`), keeps it away (`stop`), or is only worth knowing (`note`).
    """

    what: str
    verdict: StepVerdict
    text: str


class Explanation(msgspec.Struct, frozen=True):
    """One source tag, by one rule, at one destination.

    `tag` is None for a digest that is pinned without a tag. `target` and `target_tag` are the names at the destination;
    None if the rule does not take it there. `digest`: what is wanted there, if that is known. `next`: what the next run
    does. `remedy`: what would have to change for the tag to be in step; None if nothing has to.
    """

    rule: str
    source: str
    repository: str
    tag: str | None
    destination: str
    target: str | None
    target_tag: str | None
    digest: str | None
    verdict: Verdict
    since: dt.datetime | None
    steps: list[Step]
    next: str
    remedy: str | None


class Answer(msgspec.Struct, frozen=True):
    """All explanations of what was asked for; `verdict` sums them up.

    `other_rules`: that many rules of the same source leave the repository out. `problems`: what could not be looked at.
    """

    asked: str
    fresh: bool
    verdict: Verdict
    explanations: list[Explanation]
    other_rules: int
    problems: list[str]


_WORST: Sequence[Verdict] = ("behind", "conflict", "held", "unknown", "in step", "not selected")


def sum_up(verdicts: Iterable[Verdict]) -> Verdict:
    """One verdict for many. A rule that leaves the tag out does not count where another takes it."""
    distinct = set(verdicts)
    return next((each for each in _WORST if each in distinct), "unknown")


def exit_code(verdict: Verdict) -> int:
    """0 in step; 3 if it is known why the tag is not in step; 1 if it is not known."""
    match verdict:
        case "in step":
            return 0
        case "unknown":
            return 1
        case _:
            return 3
