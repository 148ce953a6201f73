"""What `[[rule.trust]]` demands: key files, contradictions, and the policy that the engine judges by."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from replicator.config.document import KeyPath
from replicator.config.syntax import Context, Syntax, parse_file, parse_regex
from replicator.trust.policy import Identity, Signing, TrustedRoot, TrustPolicy

if TYPE_CHECKING:
    from replicator.config.model import RuleTable
    from replicator.config.model.trust import TrustTable
    from replicator.trust.policy import PublicKey

OLD_ROOT_DAYS: Final = 183
"""Sigstore replaces keys and certificates about once a year."""
_MAX_ROOT_BYTES: Final = 4 * 1024 * 1024


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


def parse_trusted_root(value: Any, context: Context) -> TrustedRoot:
    """The trusted root in a file, relative to the directory of the config; raises ValueError."""
    from replicator.trust.keyless import check_root  # noqa: PLC0415  # needs an extra

    path = parse_file(value, context)
    with path.open("rb") as file:
        content = file.read(_MAX_ROOT_BYTES + 1)
    if len(content) > _MAX_ROOT_BYTES:
        raise ValueError(f"{path} is larger than {_MAX_ROOT_BYTES} bytes")
    root = TrustedRoot(str(path), content, path.stat().st_mtime)
    try:
        check_root(root)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return root


def parse_identity(text: Any, _: Context) -> str | re.Pattern[str]:
    """An identity, or `re:` and a regular expression for the whole of it; raises ValueError."""
    if not isinstance(text, str) or not text:
        raise ValueError("must be an identity, such as an address or the URI of a workflow")
    return parse_regex(text.removeprefix("re:")) if text.startswith("re:") else text


def old_roots(policies: Iterable[TrustPolicy], now: float) -> Iterator[str]:
    """Warnings about trusted roots that are so old that keys in use may be missing."""
    roots = {each.trusted_root.path: each.trusted_root for each in policies if each.trusted_root is not None}
    for path, root in roots.items():
        days = int((now - root.modified) / 86400)
        if days > OLD_ROOT_DAYS:
            yield (
                f"{path}: the trusted root is {days} days old and may lack keys that are in use by now; "
                "write a new one with `cosign trusted-root create`"
            )


IDENTITY: Final = Syntax("identity", parse_identity, {"type": "string", "minLength": 1})
ROOT: Final = Syntax("path", parse_trusted_root, {"type": "string", "minLength": 1})
KEY: Final = Syntax("path", parse_key, {"type": "string", "minLength": 1})


def check_trust(rule: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """Contradictions in the tables `trust` of a rule."""
    tables = rule.get("trust")
    named: dict[object, int] = {}
    for at, table in enumerate(tables if isinstance(tables, list) else []):
        if isinstance(table, dict):
            name = table.get("name") or f"trust {at + 1}"
            if isinstance(name, str) and named.setdefault(name, at) != at:
                other = f"{name!r} is the name of trust[{named[name]}] too"
                yield ("trust", at, "name"), f"{other}; messages could not tell them apart"
            yield from ((("trust", at, *place), text) for place, text in _contradictions(table))


def _contradictions(table: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    if not table.get("keys") and not table.get("keyless"):
        yield (), "has no signers; set keys or keyless"
    if table.get("keyless") and "trusted_root" not in table:
        yield ("keyless",), "requires trusted_root; write one with `cosign trusted-root create`"
    if "trusted_root" in table and not table.get("keyless"):
        yield ("trusted_root",), "applies only to keyless; set keyless or remove trusted_root"
    if table.get("keyless") and "identity" in table:
        yield ("identity",), "cannot be combined with keyless: bundles do not name the repository"
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
            keyless=tuple(Identity(each.issuer, each.identity) for each in table.keyless),
            trusted_root=table.trusted_root,
            minimum=table.min,
            annotations=dict(table.annotations),
            same_repository=table.identity == "repository",
            attestations=tuple(each.predicate for each in table.attestations),
        )
        for number, table in enumerate(tables, 1)
    )


def build_signing(table: RuleTable, agent: str, sites: Mapping[str, str]) -> Signing | None:
    """How a rule signs; None if it does not.

    Args:
        table: the rule.
        agent: the agent's name.
        sites: URLs by site.

    Raises:
        ValueError: the key cannot be used.
    """
    if table.sign is None:
        return None
    from replicator.trust.signing import check_signing_key  # noqa: PLC0415  # cryptography takes 40 ms

    try:
        check_signing_key(table.sign.key())
    except ValueError as error:
        raise ValueError(f"rule.{table.name}.sign.key: {error}") from None
    # A rule without a source takes images from every site that its lists name.
    names = {table.source, *table.destinations} if table.source else set(sites)
    hosts = {name: url.partition("://")[2] for name, url in sites.items() if url.startswith("http")}
    return Signing(
        table.sign.key,
        agent,
        statement=table.sign.statement,
        hosts=tuple(sorted((name, host) for name, host in hosts.items() if name in names)),
    )
