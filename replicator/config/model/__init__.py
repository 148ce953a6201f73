"""The config's tables, key by key: the one source of validation, JSON Schema, reference and example.

One table is validated at a time (`problems.validate`), so that a mistake in one never hides those in another.
What no single table can know (names of sites, contradicting keys) is in `checks`.
"""

from __future__ import annotations

from replicator.config.model.agent import (
    AgentTable,
    CacheTable,
    HMACTable,
    HTTPTable,
    NotifyTable,
    ServerTLSTable,
    WebhookTable,
)
from replicator.config.model.rule import (
    RenameTable,
    RenameTagsTable,
    ReplacementTable,
    RuleHooksTable,
    RuleTable,
    TagsTable,
)
from replicator.config.model.site import (
    BandwidthTable,
    LimitsTable,
    QuotaTable,
    SiteTable,
    TimeoutsTable,
    TLSTable,
    WindowTable,
)
from replicator.config.model.table import Table, keys_of, table_in

__all__ = [
    "AgentTable",
    "BandwidthTable",
    "CacheTable",
    "HMACTable",
    "HTTPTable",
    "LimitsTable",
    "NotifyTable",
    "QuotaTable",
    "RenameTable",
    "RenameTagsTable",
    "ReplacementTable",
    "RuleHooksTable",
    "RuleTable",
    "ServerTLSTable",
    "SiteTable",
    "TLSTable",
    "Table",
    "TagsTable",
    "TimeoutsTable",
    "WebhookTable",
    "WindowTable",
    "keys_of",
    "table_in",
]
