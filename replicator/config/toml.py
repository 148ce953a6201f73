"""Values as TOML. Importing this takes 30 ms, as it imports tomlkit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tomlkit
from tomlkit.items import InlineTable, Item


def item(value: Any, text: Callable[[str], str] = str) -> Item:
    """A value of a key: what JSON has, but null.

    Args:
        value: tables are written inline.
        text: what each string is written as; keys are not changed.
    """
    if isinstance(value, Mapping):
        return inline(value, text)
    if isinstance(value, list):
        array = tomlkit.array()
        array.extend(item(each, text) for each in value)
        return array
    return tomlkit.item(text(value) if isinstance(value, str) else value)


def inline(values: Mapping[str, Any], text: Callable[[str], str] = str) -> InlineTable:
    """An inline table; see `item`."""
    table = tomlkit.inline_table()
    for key, value in values.items():
        table.add(key, item(value, text))
    return table
