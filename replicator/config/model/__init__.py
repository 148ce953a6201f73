"""The config's tables, key by key: the one source of validation, JSON Schema, reference and example.

Each table is validated on its own (`problems.validate`), so that a problem in one does not hide problems in another.
Problems that span tables or keys (unknown sites, contradictions) are found in `checks`.
"""

from __future__ import annotations

from replicator.config.model.agent import (
    AgentTable,
    CacheTable,
    FleetTable,
    HMACTable,
    HTTPTable,
    NotifyTable,
    OIDCTable,
    SecretHeaderTable,
    ServerTLSTable,
    WebhookTable,
)
from replicator.config.model.rule import (
    ImagesTable,
    ReferrersTable,
    RenameTable,
    RenameTagsTable,
    ReplacementTable,
    RuleHooksTable,
    RuleTable,
    TagsTable,
)
from replicator.config.model.site import (
    AuthTable,
    BandwidthTable,
    CreateTable,
    LimitsTable,
    QuotaTable,
    SiteTable,
    TimeoutsTable,
    TLSTable,
    WindowTable,
)
from replicator.config.model.table import Table, keys_of, table_in
from replicator.config.model.trust import AttestationTable, KeylessTable, SignTable, TrustTable

__all__ = [
    "AgentTable",
    "AttestationTable",
    "AuthTable",
    "BandwidthTable",
    "CacheTable",
    "CreateTable",
    "FleetTable",
    "HMACTable",
    "HTTPTable",
    "ImagesTable",
    "KeylessTable",
    "LimitsTable",
    "NotifyTable",
    "OIDCTable",
    "QuotaTable",
    "ReferrersTable",
    "RenameTable",
    "RenameTagsTable",
    "ReplacementTable",
    "RuleHooksTable",
    "RuleTable",
    "SecretHeaderTable",
    "ServerTLSTable",
    "SignTable",
    "SiteTable",
    "TLSTable",
    "Table",
    "TagsTable",
    "TimeoutsTable",
    "TrustTable",
    "WebhookTable",
    "WindowTable",
    "keys_of",
    "table_in",
]
