"""An answer as text, plain and narrow, the same in a terminal and in a pipe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from replicator.report import format_count
from replicator.runs.why.answer import Answer, Explanation

_SIGN: Final = {"pass": "+", "stop": "x", "note": " "}


def render_answer(answer: Answer) -> Iterator[str]:
    """The lines: for each rule and destination its verdict, the steps, what comes next and what would have to change."""
    for number, each in enumerate(answer.explanations):
        if number:
            yield ""
        yield from _explanation(each)
    if answer.other_rules:
        yield ""
        yield f"{format_count(answer.other_rules, 'other rule')} of the source: the repository is not selected"


def _explanation(each: Explanation) -> Iterator[str]:
    name = f"{each.source}/{each.repository}"
    name += f":{each.tag}" if each.tag is not None else f"@{each.digest}"
    yield f"{name} -> {each.destination} (rule {each.rule}): {each.verdict.upper()}"
    for step in each.steps:
        yield f"  {_SIGN[step.verdict]} {step.what}: {step.text}"
    yield f"  {each.next}"
    if each.remedy is not None:
        yield f"  to change that: {each.remedy}"
