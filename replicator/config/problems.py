"""Validates one table, and translates pydantic's errors into problems of the config."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any, Final, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from replicator.config.document import KeyPath, Section, suggest
from replicator.config.model import Table, keys_of, table_in
from replicator.config.syntax import Context

_T = TypeVar("_T", bound=Table)

_PLUGINS: Final = "PYDANTIC_DISABLE_PLUGINS"
_WORDS = {
    "bool_type": "must be true or false",
    "dict_type": "must be a table",
    "finite_number": "must be a finite number",
    "float_type": "must be a number",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "int_type": "must be a whole number",
    "less_than_equal": "must be at most {le}",
    "list_type": "must be a list",
    "literal_error": "must be {expected}",
    "model_type": "must be a table",
    "string_too_short": "is empty; set a value or remove the key",
    "string_type": "must be a string",
    "too_short": "is empty; add at least one item",
    "value_error": "{error}",
}


def validate(section: Section, model: type[_T], context: Context, problems: list[str]) -> _T | None:
    """The section as its model; None if it is invalid, with all its problems added to `problems`."""
    try:
        with _without_plugins():
            return model.model_validate(section.table, context=context)
    except ValidationError as error:
        for details in error.errors(include_url=False, include_input=False):
            place = _place(section.table, details["loc"])
            if place not in section.unset:
                problems.append(section.problem(place, _text(model, details)))
        return None


@contextlib.contextmanager
def _without_plugins() -> Iterator[None]:
    """Pydantic reads the metadata of every installed package for plugins before it builds its first validator."""
    before = os.environ.get(_PLUGINS)
    os.environ[_PLUGINS] = "__all__"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_PLUGINS]
        else:
            os.environ[_PLUGINS] = before


def _place(raw: Any, loc: KeyPath) -> KeyPath:
    """The place of the error in the file. A table written instead of a list with one item has no index there."""
    place: list[str | int] = []
    for step in loc:
        if isinstance(step, int) and not isinstance(raw, list):
            continue
        if isinstance(raw, str):
            break  # a plain value written instead of a table with this one key
        place.append(step)
        try:
            raw = raw[step]
        except (KeyError, IndexError, TypeError):
            break
    return tuple(place)


def _text(model: type[Table], details: ErrorDetails) -> str:
    loc, kind = details["loc"], details["type"]
    table = _table_at(model, loc[:-1])
    if kind == "extra_forbidden":
        return f"unknown key; {suggest(str(loc[-1]), keys_of(table))}"
    if kind == "missing":
        return f"is missing: {keys_of(table)[str(loc[-1])].description}"
    words = _WORDS.get(kind)
    return words.format_map(details.get("ctx", {})) if words else details["msg"]


def _table_at(model: type[Table], loc: KeyPath) -> type[Table]:
    for step in loc:
        if isinstance(step, str) and step in keys_of(model):
            model = table_in(keys_of(model)[step].annotation) or model
    return model
