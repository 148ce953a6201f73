"""Why a tag is, or is not, at a destination: what was asked, what is known of it, and the answer."""

from __future__ import annotations

from replicator.runs.why.answer import Answer, Explanation, Step, Verdict, exit_code
from replicator.runs.why.ask import Asker
from replicator.runs.why.asked import Asked, parse_asked
from replicator.runs.why.known import Agenda
from replicator.runs.why.text import render_answer

__all__ = [
    "Agenda",
    "Answer",
    "Asked",
    "Asker",
    "Explanation",
    "Step",
    "Verdict",
    "exit_code",
    "parse_asked",
    "render_answer",
]
