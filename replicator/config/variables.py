"""Environment variables that contain secrets of the config."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from replicator.config.document import Document, Place, Section
from replicator.config.model import HTTPTable, NotifyTable, SiteTable, Table, WebhookTable, keys_of, table_in
from replicator.config.syntax import PROXY, Syntax


def secret_variables(document: Document) -> frozenset[str]:
    """The names in `{ env = NAME }`, and in `${NAME}` in the value of a secret or a proxy URL."""
    sections: list[tuple[type[Table], Section]] = [
        *((SiteTable, section) for section in document.sites.values()),
        *((WebhookTable, section) for section in document.webhooks.values()),
        *((NotifyTable, section) for section in document.notify.values()),
    ]
    if document.http is not None:
        sections.append((HTTPTable, document.http))
    names: set[str] = set()
    for model, section in sections:
        for place, value in _secrets(model, section.table, ()):
            names |= section.expanded.get(place, frozenset())
            if isinstance(value, dict) and isinstance(name := value.get("env"), str):
                names.add(name)
    return frozenset(names)


def _secrets(model: type[Table], table: Mapping[str, Any], place: Place) -> Iterator[tuple[Place, Any]]:
    """The value of each secret key in the table, with its place."""
    for key, info in keys_of(model).items():
        value, inner = table.get(key), table_in(info.annotation)
        if any(mark is PROXY or mark.secret for mark in info.metadata if isinstance(mark, Syntax)):
            yield (*place, key), value
        elif inner is not None and isinstance(value, dict):
            yield from _secrets(inner, value, (*place, key))
