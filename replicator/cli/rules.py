"""The config of a command, and the rules that the command applies to."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Sequence

from msgspec.structs import replace

from replicator.cli.options import Invocation
from replicator.cli.watch import Watch
from replicator.config.load import load
from replicator.config.settings import Loaded
from replicator.errors import ConfigError
from replicator.events import Warned
from replicator.policy.lag import lag
from replicator.policy.rule import Rule
from replicator.policy.schedule import promised_interval
from replicator.ports import Standing


def read_config(invocation: Invocation, watch: Watch) -> Loaded:
    """The config; emits its warnings. Raises ConfigError."""
    loaded = load(invocation.config, os.environ)
    for text in loaded.warnings:
        watch.events.emit(Warned(None, text))
    return loaded


def select_rules(loaded: Loaded, names: Sequence[str], destinations: Sequence[str]) -> list[Rule]:
    """The named rules (or all), each with those of its destinations that are served here and named (or all).

    Raises:
        ConfigError: a name is not in the config, or no rule is left.
    """
    problems = _unknown(loaded.rules, names)
    problems += [
        f"--destination {name}: unknown site; the config has {_listed(loaded.sites)}"
        for name in destinations
        if name not in loaded.sites
    ]
    if problems:
        raise ConfigError(problems)
    wanted = set(loaded.agent.serves) & set(destinations or loaded.agent.serves)
    rules = [
        rule
        for rule in _within(loaded.rules, wanted)
        if not names or any(is_named(rule, name) for name in names)
    ]
    if not loaded.rules:
        raise ConfigError(["nothing to run: the config has no rules"])
    if not rules:
        raise ConfigError([f"nothing to run: no selected rule has a destination among {_listed(wanted)}"])
    return rules


def named_rules(rules: Sequence[Rule], names: Sequence[str], option: str = "--rule ") -> list[Rule]:
    """The named rules, in the order of the config. A rule with image lists may be several, one for each source.

    Args:
        rules: all rules of the config.
        names: which of them.
        option: what stands before a name in the command, for the error.

    Raises:
        ConfigError: a name is not in the config.
    """
    if problems := _unknown(rules, names, option):
        raise ConfigError(problems)
    return [rule for rule in rules if any(is_named(rule, name) for name in names)]


def _unknown(rules: Sequence[Rule], names: Iterable[str], option: str = "--rule ") -> list[str]:
    known = _listed(rule.name for rule in rules)
    return [
        f"{option}{name}: unknown rule; the config has {known}"
        for name in names
        if not any(is_named(rule, name) for rule in rules)
    ]


def is_named(rule: Rule, name: str) -> bool:
    """Whether a name means the rule: its own, or that of the config's rule whose image lists it is for (`NAME@SITE`)."""
    return name in {rule.name, rule.name.partition("@")[0]}


def served_rules(loaded: Loaded) -> list[Rule]:
    """All rules that have destinations served by this agent, each with only those destinations."""
    return _within(loaded.rules, set(loaded.agent.serves))


def lag_of(rule: Rule, standing: Standing, now: float) -> float:
    """The lag of one destination in seconds, given the rule's schedule."""
    return lag(standing, promised_interval(rule.interval, rule.cron, standing.last_look), now)


def _within(rules: Iterable[Rule], sites: Container[str]) -> list[Rule]:
    """The rules with only the destinations that are among the sites; rules without any are left out."""
    narrowed = [
        replace(rule, destinations=tuple(each for each in rule.destinations if each in sites))
        for rule in rules
    ]
    return [rule for rule in narrowed if rule.destinations]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
