"""Tables and lists that may be written as a single value: marks of the fields that have them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from replicator.config.syntax import SIZE


@dataclass(frozen=True, slots=True)
class OneOrMany:
    """Marks a list that may be written as its only item, without brackets."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(
            lambda value: [value] if isinstance(value, dict) else value, handler(source)
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        many = handler(schema)
        return {"anyOf": [many["items"], many]}


@dataclass(frozen=True, slots=True)
class Rate:
    """Marks a table that may be written as the value of its `default`."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(
            lambda value: value if value is None or isinstance(value, dict) else {"default": value},
            handler(source),
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"anyOf": [dict(SIZE.schema), handler(schema)]}


@dataclass(frozen=True, slots=True)
class ShortFor:
    """Marks a table that may be written as the value of one of its keys.

    `key`: which; `kind`: the type of its values, by which the short form is told from the table.
    """

    key: str
    kind: type[bool | str]

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(
            lambda value: {self.key: value} if isinstance(value, self.kind) else value, handler(source)
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        table = handler(schema)
        plain = {"type": "boolean" if self.kind is bool else "string"}
        return {"anyOf": [table.get("properties", {}).get(self.key, plain), table]}
