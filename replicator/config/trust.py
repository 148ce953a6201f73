"""What `[[rule.trust]]` demands: key files, contradictions, and the policy that the engine judges by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from replicator.config.document import KeyPath
from replicator.config.syntax import Context, Syntax, parse_file
from replicator.trust.policy import TrustPolicy

if TYPE_CHECKING:
    from replicator.config.model.trust import TrustTable
    from replicator.trust.policy import PublicKey


def parse_key(value: Any, context: Context) -> PublicKey:
    """The public key in a PEM file, relative to the directory of the config; raises ValueError."""
    from replicator.trust.keys import MAX_KEY_BYTES, read_public_key  # noqa: PLC0415  # cryptography takes 40 ms

    path = parse_file(value, context)
    with path.open("rb") as file:
        data = file.read(MAX_KEY_BYTES + 1)
    try:
        return read_public_key(data, path.name)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


KEY: Final = Syntax("path", parse_key, {"type": "string", "minLength": 1})


def check_trust(rule: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """Contradictions in the tables `trust` of a rule."""
    tables = rule.get("trust")
    for at, table in enumerate(tables if isinstance(tables, list) else []):
        if isinstance(table, dict):
            yield from ((("trust", at, *place), text) for place, text in _contradictions(table))


def _contradictions(table: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    if not table.get("keys"):
        yield (), "has no signers; set keys"
    if "attestations" in table:
        if "annotations" in table:
            yield (
                ("annotations",),
                "applies to signatures, not to attestations; use a table of its own for each",
            )
        if "identity" in table:
            yield ("identity",), "applies to signatures, not to attestations; use a table of its own for each"


def build_trust(tables: Sequence[TrustTable]) -> tuple[TrustPolicy, ...]:
    """The policies of a rule."""
    return tuple(
        TrustPolicy(
            name=table.name or f"trust {number}",
            keys=tuple(table.keys),
            minimum=table.min,
            annotations=dict(table.annotations),
            same_repository=table.identity == "repository",
            attestations=tuple(each.predicate for each in table.attestations),
        )
        for number, table in enumerate(tables, 1)
    )
