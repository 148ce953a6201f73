"""From validated tables to what the rest of the program runs on, free of the config's syntax."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from replicator.config.model import AgentTable, RenameTagsTable, RuleTable, SiteTable, TagsTable
from replicator.policy.pattern import TagPattern
from replicator.policy.rule import Pin, Rename, Replacement, RepositorySelection, Rule, TagSelection
from replicator.sites.registry.settings import TLS, LimitSettings, Login, Quota, RegistrySettings


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """This agent. `serves` are the destinations it replicates to; paths are absolute, and need not exist yet."""

    name: str
    serves: tuple[str, ...]
    state_path: Path
    cache_path: Path
    cache_max_bytes: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """A config that can be used. `effective` is what `config show` prints: plain TOML types, secrets masked."""

    agent: AgentSettings
    sites: dict[str, RegistrySettings]
    rules: tuple[Rule, ...]
    warnings: tuple[str, ...]
    files: tuple[Path, ...]
    effective: Mapping[str, Any] = field(repr=False)


def build_agent(table: AgentTable, sites: tuple[str, ...], environ: Mapping[str, str]) -> AgentSettings:
    """The agent with its defaults.

    Raises:
        ValueError: no place for the state or cache is known; says how to name one.
    """
    state = table.state or (
        _folder(environ, "STATE_DIRECTORY", "XDG_STATE_HOME", ".local/state", "state") / "state.db"
    )
    cache = table.cache.path or _folder(environ, "CACHE_DIRECTORY", "XDG_CACHE_HOME", ".cache", "cache")
    return AgentSettings(
        name=table.name or os.uname().nodename or "localhost",
        serves=sites if table.serves is None else tuple(table.serves),
        state_path=state,
        cache_path=cache,
        cache_max_bytes=table.cache.max_bytes,
    )


def build_site(name: str, table: SiteTable) -> RegistrySettings:
    """One registry's settings."""
    login = None
    if table.username or table.password or table.identity_token or table.bearer_token:
        login = Login(table.username or "", table.password, table.identity_token, table.bearer_token)
    limits = table.limits
    return RegistrySettings(
        name=name,
        url=table.url,
        login=login,
        docker_config=table.docker_config,
        tls=TLS(table.tls.ca, table.tls.cert, table.tls.key, table.tls.verify),
        proxy=table.proxy,
        limits=LimitSettings(limits.concurrency, limits.requests_per_second, limits.bytes_per_second),
        quota=Quota(table.quota.reserve, table.quota.below),
        capabilities=dict(table.capabilities),
    )


def build_rule(table: RuleTable) -> Rule:
    """One rule."""
    patterns = table.repositories
    return Rule(
        name=table.name,
        source=table.source,
        destinations=tuple(table.destinations),
        repositories=RepositorySelection(
            include=tuple(pattern.glob for pattern in patterns if not pattern.negated),
            exclude=tuple(pattern.glob for pattern in patterns if pattern.negated),
        ),
        tags=tuple(_selection(tags) for tags in table.tags) or (TagSelection(),),
        mirrors=tuple(table.mirrors),
        rename_repository=_rename(table.rename),
        rename_tag=_rename(table.rename.tags),
        recheck=table.recheck,
        interval=table.interval,
    )


def _selection(table: TagsTable) -> TagSelection:
    include = table.include or []
    return TagSelection(
        include=tuple(item for item in include if isinstance(item, TagPattern)),
        exclude=tuple(table.exclude),
        pins=tuple(item for item in include if isinstance(item, Pin)),
        semver=table.semver,
        sort=table.sort,
        latest=table.latest,
        newer_than=table.newer_than,
        min_tags=table.min_tags,
        immutable=tuple(table.immutable),
    )


def _rename(table: RenameTagsTable) -> Rename:
    replacements = tuple(Replacement(item.match, item.replace) for item in table.regex)
    return Rename(table.strip, table.prefix, table.suffix, replacements)


def _folder(environ: Mapping[str, str], systemd: str, xdg: str, below_home: str, what: str) -> Path:
    """Systemd's folder (the first of several), else XDG's; a relative XDG variable is ignored, as XDG wants."""
    if given := environ.get(systemd, "").partition(":")[0]:
        if not Path(given).is_absolute():
            raise ValueError(
                f"${systemd} is the relative path {given!r}; make it absolute, or set agent.{what}"
            )
        return Path(given)
    base = Path(environ.get(xdg, ""))
    if base.is_absolute():
        return base / "replicator"
    home = Path(environ.get("HOME", ""))
    if not home.is_absolute():
        raise ValueError(f"no default without ${systemd}, ${xdg} or $HOME; set agent.{what}")
    return home / below_home / "replicator"
