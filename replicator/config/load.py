"""Loads the config: reads the files, validates them and builds the settings that the program uses."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar
from zoneinfo import ZoneInfo

from msgspec.structs import replace

from replicator.config.build import (
    build_agent,
    build_bandwidth,
    build_commands,
    build_http,
    build_notify,
    build_rules,
    build_site,
    build_webhook,
)
from replicator.config.certificate import server_context
from replicator.config.checks import check, warnings
from replicator.config.document import Document, Section, find, read_document
from replicator.config.model import (
    AgentTable,
    FleetTable,
    HTTPTable,
    NotifyTable,
    RuleTable,
    SiteTable,
    Table,
    WebhookTable,
)
from replicator.config.problems import validate
from replicator.config.settings import AgentSettings, FleetSettings, HTTPSettings, Loaded
from replicator.config.show import effective
from replicator.config.syntax import Context
from replicator.config.trust import build_signing, old_roots
from replicator.errors import ConfigError
from replicator.model.names import hub_url
from replicator.policy.cycles import cycles
from replicator.policy.mapping import static_collisions
from replicator.policy.rule import Rule

_T = TypeVar("_T", bound=Table)
_V = TypeVar("_V")


def load(path: Path | None, environ: Mapping[str, str]) -> Loaded:
    """Reads, checks and builds the config.

    Args:
        path: the config file; None tries `$REPLICATOR_CONFIG`, `./replicator.toml`, `/etc/replicator/config.toml`.
        environ: for `${NAME}`, secrets and default directories. It is kept and read again with each secret.

    Raises:
        ConfigError: has every problem of every file. No problem contains a secret.
    """
    problems: list[str] = []
    main = find(path, environ)
    document = read_document(main, environ, problems)
    builder = _Builder(document, main, environ, problems)
    agent, http, fleet = builder.agent(), builder.http(), builder.fleet()
    sites, webhooks = builder.named("site", SiteTable), builder.named("webhook", WebhookTable)
    notify, rules = builder.named("notify", NotifyTable), builder.rules()
    timezone = agent.timezone if agent else ZoneInfo("UTC")
    hubs = {name for name, table in sites.items() if hub_url(table.url)}
    check(document, problems)
    opened = {name: build_site(name, table) for name, table in sites.items()}
    built: dict[str, list[Rule]] = {}
    for table in rules:
        try:
            signing = build_signing(
                table, agent.name if agent else "", {name: each.url for name, each in sites.items()}
            )
            made = build_rules(table, timezone, opened, from_hub=table.source in hubs)
            built[table.name] = [replace(each, sign=signing) for each in made]
        except ValueError as error:
            problems.append(f"{main}: {error}")
    every = [rule for each in built.values() for rule in each]
    problems.extend(f"{main}: {collision}" for collision in static_collisions(every))
    # What a list names is known in a run only; its rules select everything by name.
    problems.extend(f"{main}: {cycle}" for cycle in cycles([rule for rule in every if rule.images is None]))
    if problems or agent is None:
        raise ConfigError(problems)
    return Loaded(
        agent=agent,
        sites=opened,
        rules=tuple(every),
        warnings=(
            *warnings(document),
            *old_roots([policy for rule in every for policy in rule.trust], time.time()),
        ),
        files=tuple(document.files),
        effective=effective(document, agent),
        http=http,
        fleet=fleet,
        webhooks={name: build_webhook(name, table) for name, table in webhooks.items()},
        notify={name: build_notify(name, table) for name, table in notify.items()},
        bandwidth=_present({name: build_bandwidth(table.limits, timezone) for name, table in sites.items()}),
        commands=_present(
            {rule.name: build_commands(table) for table in rules for rule in built[table.name]}
        ),
    )


def _present(values: Mapping[str, _V | None]) -> dict[str, _V]:
    return {name: value for name, value in values.items() if value is not None}


class _Builder:
    """Validates the sections of the document and collects their problems."""

    def __init__(
        self, document: Document, main: Path, environ: Mapping[str, str], problems: list[str]
    ) -> None:
        self._document = document
        self._main = main
        self._environ = environ
        self._problems = problems

    def agent(self) -> AgentSettings | None:
        section = self._document.agent or Section(self._main, ("agent",), {}, frozenset(), {})
        table = self._validate(section, AgentTable)
        if table is None:
            return None
        try:
            return build_agent(table, tuple(self._document.sites), self._environ)
        except ValueError as error:
            self._problems.append(section.problem((), str(error)))
            return None

    def http(self) -> HTTPSettings:
        section = self._document.http
        table = self._validate(section, HTTPTable) if section else None
        if section is None or table is None:
            return HTTPSettings()
        if table.tls is not None:
            try:
                server_context(table.tls.cert, table.tls.key)
            except ValueError as error:
                self._problems.append(section.problem(("tls",), str(error)))
        return build_http(table)

    def fleet(self) -> FleetSettings:
        section = self._document.fleet
        table = self._validate(section, FleetTable) if section else None
        if table is None:
            return FleetSettings()
        return FleetSettings(table.enabled, table.shards, table.jobs, table.heartbeat, table.split_bytes)

    def named(self, key: str, model: type[_T]) -> dict[str, _T]:
        """The valid tables of `[KEY.NAME]` by name."""
        return _present(
            {name: self._validate(section, model) for name, section in self._document.named[key].items()}
        )

    def rules(self) -> list[RuleTable]:
        tables = [self._validate(section, RuleTable) for section in self._document.rules]
        return [table for table in tables if table is not None]

    def _validate(self, section: Section, model: type[_T]) -> _T | None:
        context = Context(section.file.absolute().parent, self._environ)
        return validate(section, model, context, self._problems)
