"""The first causes of failures, for people who read a notification or a command that gets a report.

"3 tags failed" helps nobody, and the last error of a run may be about something else: failed tags that wait for their
next try are in the state, each with its own error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from replicator.engine.result import DestinationResult
from replicator.ports import State

MAX_CAUSES: Final = 3
_MAX_REPOSITORIES: Final = 10


async def failed_causes(state: State, rule: str, destination: str) -> list[str]:
    """Why tags of the rule are failed at the destination: at most `MAX_CAUSES`, those pending longest first.

    Tags with the same cause are counted together. Empty if no tag has failed. Costs one query, and one for each of at
    most ten repositories. Raises StateError.
    """
    behind = [
        each
        for each in await state.behind()
        if each.rule == rule and each.destination == destination and each.failed
    ]
    behind.sort(key=lambda each: (each.oldest_pending, each.repository))
    found: list[tuple[str, str]] = []
    for repository in [each.repository for each in behind[:_MAX_REPOSITORIES]]:
        pending = await state.pending(rule, destination, repository)
        failed = sorted((each.since, each.tag, each.error) for each in pending.values() if each.error)
        found += [(f"{repository}:{tag}", error) for _, tag, error in failed]
        if len({error for _, error in found}) >= MAX_CAUSES:
            break
    return _counted(found)


def reported_causes(result: DestinationResult) -> list[str]:
    """The first causes of what failed in a run at one destination, by its report; at most `MAX_CAUSES`."""
    failures = [
        f"{each.site}{f': {each.repository}' if each.repository else ''}: {each.operation}: {each.cause}"
        for each in result.failures
    ]
    if failures:
        return list(dict.fromkeys(failures))[:MAX_CAUSES]
    return _counted(
        (f"{each.target}:{each.tag}" if each.tag else f"{each.target}@{each.digest}", each.reason)
        for each in result.actions
        if each.outcome == "failed" and each.reason
    )


def in_one_line(causes: Sequence[str]) -> str:
    """The causes as one line of text."""
    return "; ".join(causes)


def _counted(found: Iterable[tuple[str, str]]) -> list[str]:
    """Each cause once, after the first tag that it is about."""
    known = list(found)
    counts = Counter(cause for _, cause in known)
    first: dict[str, str] = {}
    for what, cause in known:
        first.setdefault(cause, what)
    return [
        f"{what}{f' and {counts[cause] - 1} more' if counts[cause] > 1 else ''}: {cause}"
        for cause, what in list(first.items())[:MAX_CAUSES]
    ]
