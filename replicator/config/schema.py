"""JSON Schema of the config, for editors and validators."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

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
from replicator.config.syntax import NAME


class _Config(Table):
    """Config of replicator."""

    agent: AgentTable | None = None
    http: HTTPTable | None = None
    fleet: FleetTable | None = None
    site: dict[Annotated[str, NAME], SiteTable] = Field(default_factory=dict)
    rule: list[RuleTable] = Field(default_factory=list)
    webhook: dict[Annotated[str, NAME], WebhookTable] = Field(default_factory=dict)
    notify: dict[Annotated[str, NAME], NotifyTable] = Field(default_factory=dict)


class _Generate(GenerateJsonSchema):
    """Without null, which TOML does not have, and without titles, which would be names of Python classes."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> dict[str, Any]:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> dict[str, Any]:
        described = super().default_schema(schema)
        if described.get("default", ...) is None:
            del described["default"]
        return described

    def field_title_should_be_set(self, schema: object) -> bool:  # noqa: ARG002  # pydantic's signature
        return False


def schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of one config file.

    It describes each value, but not what spans tables or needs the file system: names of sites, contradictions,
    missing files.
    """
    return {
        "$schema": GenerateJsonSchema.schema_dialect,
        **_Config.model_json_schema(schema_generator=_Generate),
        "title": "replicator",
    }
