"""The effective config: files merged, defaults filled in, secrets masked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, get_args, get_origin

from replicator.config.document import Document
from replicator.config.model import (
    AgentTable,
    FleetTable,
    HTTPTable,
    NotifyTable,
    RuleTable,
    SiteTable,
    Table,
    WebhookTable,
    keys_of,
    table_in,
)
from replicator.config.sitechecks import unfitting
from replicator.config.syntax import PROXY, Syntax
from replicator.state.place import PostgresPlace

if TYPE_CHECKING:
    from tomlkit.items import Item

    from replicator.config.settings import AgentSettings, Loaded

MASK: Final = "***"
_USERINFO: Final = re.compile(r"://[^/]*@")


def effective(document: Document, agent: AgentSettings) -> dict[str, Any]:
    """The whole config as plain TOML types in the syntax of the config, with every literal secret masked."""
    own = _effective(AgentTable, document.agent.table if document.agent else {})
    return {
        "agent": {
            **own,
            "name": agent.name,
            "state": agent.state.url
            if isinstance(agent.state, PostgresPlace)
            else f"sqlite:///{agent.state}",
            "cache": {**own["cache"], "path": str(agent.cache_path)},
        },
        "http": _effective(HTTPTable, document.http.table if document.http else {}),
        "fleet": _effective(FleetTable, document.fleet.table if document.fleet else {}),
        "site": {name: _site(section.table) for name, section in document.sites.items()},
        "rule": [_effective(RuleTable, section.table) for section in document.rules],
        "webhook": {
            name: _effective(WebhookTable, section.table) for name, section in document.webhooks.items()
        },
        "notify": {name: _effective(NotifyTable, section.table) for name, section in document.notify.items()},
    }


def _site(table: Mapping[str, Any]) -> dict[str, Any]:
    """Without the keys of other kinds of sites, which would not load again."""
    _, unfit = unfitting(table)
    return {key: value for key, value in _effective(SiteTable, table).items() if key not in unfit}


def _effective(model: type[Table], table: Mapping[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for key, info in keys_of(model).items():
        inner = table_in(info.annotation)
        value = table.get(key, {} if inner is info.annotation else info.default)
        syntax = next((mark for mark in info.metadata if isinstance(mark, Syntax)), None)
        if syntax is not None and syntax.secret and isinstance(value, str):
            value = MASK
        elif syntax is PROXY and isinstance(value, str):
            value = _USERINFO.sub(f"://{MASK}@", value)
        elif isinstance(value, dict) and _has_secret_values(info.annotation):
            value = {name: MASK if isinstance(each, str) else each for name, each in value.items()}
        elif inner is not None and isinstance(value, dict):
            value = _effective(inner, value)
        elif inner is not None and isinstance(value, list):
            value = [_effective(inner, item) for item in value]
        if isinstance(value, str | bool | int | float | dict | list):
            shown[key] = value
    return shown


def _has_secret_values(annotation: Any) -> bool:
    """Whether a key holds a table of secrets by free names."""
    marks = (mark for part in get_args(annotation) for mark in getattr(part, "__metadata__", ()))
    return get_origin(annotation) is dict and any(isinstance(mark, Syntax) and mark.secret for mark in marks)


def show(loaded: Loaded) -> str:
    """The effective config as TOML. It can be loaded again, except for literal secrets, which are masked."""
    import tomlkit  # noqa: PLC0415  # 30 ms that only `config show` needs to spend

    document = tomlkit.document()
    document.add("agent", _table(loaded.effective["agent"]))
    document.add("http", _table(loaded.effective["http"]))
    document.add("fleet", _table(loaded.effective["fleet"]))
    for key in ("site", "webhook", "notify"):
        tables = tomlkit.table(is_super_table=True)
        for name, values in loaded.effective[key].items():
            tables.add(name, _table(values))
        if loaded.effective[key]:
            document.add(key, tables)
    rules = tomlkit.aot()
    for rule in loaded.effective["rule"]:
        rules.append(_table(rule))
    if loaded.effective["rule"]:
        document.add("rule", rules)
    return tomlkit.dumps(document)


def _table(values: Mapping[str, Any]) -> Item:
    import tomlkit  # noqa: PLC0415  # see show

    from replicator.config.toml import item  # noqa: PLC0415  # see show

    table = tomlkit.table()
    for key, value in values.items():
        table.add(key, item(value, _escaped))
    return table


def _escaped(text: str) -> str:
    """A text that is read again as itself: `${NAME}` in a config is a variable."""
    return text.replace("${", "$${")
