"""Tables and lists that may be written as a single value: marks of the fields that have them."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

_OF_THE_KEY: Final = frozenset({"default", "description", "title"})
"""What a key's schema says of the key, not of its value."""


class OneOrMany(msgspec.Struct, frozen=True):
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


class ShortFor(msgspec.Struct, frozen=True):
    """Marks a table that may be written as the value of one of its keys.

    `key`: which; `kinds`: the types of its values, by which the short form is told from the table.
    """

    key: str
    kinds: tuple[type, ...]

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(
            lambda value: {self.key: value} if isinstance(value, self.kinds) else value, handler(source)
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        table = handler(schema)
        short = handler.resolve_ref_schema(table)["properties"][self.key]
        return {"anyOf": [{key: value for key, value in short.items() if key not in _OF_THE_KEY}, table]}
