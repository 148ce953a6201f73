"""When the rules of an agent's config are due in its fleet. New and changed rules are due at once."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

from replicator.fleet.fleet import Fleet
from replicator.fleet.ticks import Ticks, identity
from replicator.policy.rule import Rule
from replicator.ports import Standing


class DueRules:
    """The ticks of all rules.

    Args:
        fleet: the agent's.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._ticks: dict[str, tuple[Rule, Ticks]] = {}
        self._replaced: dict[str, float] = {}
        self.has_begun = False
        """Whether the rules that the agent began with are known."""

    def next(self, rule: str) -> float | None:
        """When the rule is due next (epoch seconds); None: not by itself, as far as is known."""
        known = self._ticks.get(rule)
        return None if known is None else known[1].next(self._fleet.now())

    def follow(self, before: Iterable[Rule], rules: Mapping[str, Rule]) -> None:
        """Other rules are in force. One that is changed back before `ticks` saw the change is scanned at once all the same.

        Events may have been dropped meanwhile, and while the database is away, `ticks` sees nothing for long.
        """
        now = self._fleet.now()
        self._replaced.update((rule.name, now) for rule in before if rules.get(rule.name) != rule)

    async def ticks(self, rule: Rule, standings: Sequence[Standing]) -> Ticks:
        """The rule's ticks. A rule that is new or was changed is scanned at once.

        So is a rule without a schedule when the first agent of the fleet starts, as nobody received the events before.
        Raises StateError.
        """
        known, replaced = self._ticks.get(rule.name), self._replaced.get(rule.name)
        if known is not None and known[0] == rule and replaced is None:
            return known[1]
        looks = {each.destination: each.last_look for each in standings if each.rule == rule.name}
        oldest = min(looks.get(site) or 0.0 for site in rule.destinations)
        is_unscheduled = rule.interval is None and rule.cron is None
        anew = is_unscheduled and not self.has_begun and self._fleet.is_eldest
        is_change = known is not None and known[0] != rule
        since = math.inf if anew else 0.0 if is_change or replaced is None else replaced
        defined = await self._fleet.note_definition(rule.name, identity(rule), since=since)
        if self._replaced.get(rule.name) == replaced:  # else it was replaced meanwhile
            self._replaced.pop(rule.name, None)
        was_seen = bool(oldest) and not self.has_begun and not anew
        is_new = defined.is_news and not (defined.is_first and was_seen)
        ticks = Ticks(rule, last_look=defined.at if is_new else max(oldest, defined.at), is_new=is_new)
        self._ticks[rule.name] = (rule, ticks)
        return ticks

    async def keep(self, rules: Collection[str]) -> None:
        """Forgets rules that are not in the config any more; one that comes back is new. Raises StateError."""
        for name in self._ticks.keys() - set(rules):
            await self._fleet.forget_definition(name, self._ticks[name][1].identity)
            del self._ticks[name]
            self._replaced.pop(name, None)


def is_failing(rule: Rule, standings: Sequence[Standing]) -> bool:
    """Whether a part of the rule failed, or was never scanned as a whole."""
    mine = [each for each in standings if each.rule == rule.name]
    return any(each.failed or each.last_error or each.last_look is None for each in mine)
