"""What all tables of the config have in common."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo


class Table(BaseModel):
    """Any table of the config. Unknown keys and values of another TOML type are errors."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        arbitrary_types_allowed=True,
        hide_input_in_errors=True,
        defer_build=True,
        regex_engine="python-re",
    )


def setting(description: str, default: Any = ..., **constraints: Any) -> Any:
    """A key with its description for the reference. A string default is parsed like a value of the config."""
    return Field(default, description=description, validate_default=isinstance(default, str), **constraints)


def keys_of(model: type[Table]) -> dict[str, FieldInfo]:
    """The keys of a table, as written in the config."""
    return {info.alias or name: info for name, info in model.model_fields.items()}


def table_in(annotation: Any) -> type[Table] | None:
    """The table type of a key, whether it holds one table or a list of them; None for other types."""
    if isinstance(annotation, type) and issubclass(annotation, Table):
        return annotation
    return next((table for part in get_args(annotation) if (table := table_in(part))), None)
