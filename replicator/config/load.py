"""The config, from its files to what the program runs on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from replicator.config.build import AgentSettings, Loaded, build_agent, build_rule, build_site
from replicator.config.checks import check, warnings
from replicator.config.document import Document, Section, find, read_document
from replicator.config.model import AgentTable, RuleTable, SiteTable, Table
from replicator.config.problems import validate
from replicator.config.show import effective
from replicator.config.syntax import Context
from replicator.errors import ConfigError
from replicator.policy.mapping import static_collisions
from replicator.policy.rule import Rule
from replicator.sites.registry.settings import RegistrySettings

_T = TypeVar("_T", bound=Table)


def load(path: Path | None, environ: Mapping[str, str]) -> Loaded:
    """Reads, checks and builds the config.

    Args:
        path: the config file; None looks in `$REPLICATOR_CONFIG`, `./replicator.toml`, `/etc/replicator/config.toml`.
        environ: for `${NAME}`, secrets and default folders; kept, and read again with each secret.

    Raises:
        ConfigError: with every problem of every file. No problem's text holds a secret.
    """
    problems: list[str] = []
    main = find(path, environ)
    document = read_document(main, environ, problems)
    builder = _Builder(document, main, environ, problems)
    agent, sites, rules = builder.agent(), builder.sites(), builder.rules()
    check(document, problems)
    problems.extend(f"{main}: {collision}" for collision in static_collisions(rules))
    if problems or agent is None:
        raise ConfigError(problems)
    return Loaded(
        agent=agent,
        sites=sites,
        rules=tuple(rules),
        warnings=tuple(warnings(document)),
        files=tuple(document.files),
        effective=effective(document, agent),
    )


class _Builder:
    """Builds what can be built, and notes the problems of the rest."""

    def __init__(
        self, document: Document, main: Path, environ: Mapping[str, str], problems: list[str]
    ) -> None:
        self._document = document
        self._main = main
        self._environ = environ
        self._problems = problems

    def agent(self) -> AgentSettings | None:
        section = self._document.agent or Section(self._main, ("agent",), {}, frozenset(), frozenset())
        table = self._validate(section, AgentTable)
        if table is None:
            return None
        try:
            return build_agent(table, tuple(self._document.sites), self._environ)
        except ValueError as error:
            self._problems.append(section.problem((), str(error)))
            return None

    def sites(self) -> dict[str, RegistrySettings]:
        tables = {name: self._validate(section, SiteTable) for name, section in self._document.sites.items()}
        return {name: build_site(name, table) for name, table in tables.items() if table is not None}

    def rules(self) -> list[Rule]:
        tables = [self._validate(section, RuleTable) for section in self._document.rules]
        return [build_rule(table) for table in tables if table is not None]

    def _validate(self, section: Section, model: type[_T]) -> _T | None:
        context = Context(section.file.absolute().parent, self._environ)
        return validate(section, model, context, self._problems)
