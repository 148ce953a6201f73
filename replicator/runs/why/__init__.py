"""Why a tag is, or is not, at a destination: what was asked, what is known of it, and the answer."""

from __future__ import annotations

from replicator.runs.why.answer import Answer, Explanation, Step, Verdict, exit_code
from replicator.runs.why.ask import Asker
from replicator.runs.why.asked import Asked, parse_asked

__all__ = ["Answer", "Asked", "Asker", "Explanation", "Step", "Verdict", "exit_code", "parse_asked"]
