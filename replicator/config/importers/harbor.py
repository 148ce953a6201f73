"""Harbor's replication policies, as its API gives them out. Source: Harbor's API, `GET /replication/policies`."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

from replicator.config.importers.draft import Draft, RuleDraft, SiteDraft, log_in
from replicator.lists.document import Items, Mapping, Node, Text, at, items, mapping

_LOCAL: Final = "harbor.local"


def read(document: Node) -> Draft:
    """The draft of one policy, or of a list of them."""
    draft = Draft()
    for policy in document if isinstance(document, Items) else [document]:
        name = str(at(policy, "name") or "policy")
        try:
            _policy(draft, mapping(policy), name)
        except ValueError as error:
            draft.drop(f"policy {name}: {error}")
    return draft


def _policy(draft: Draft, policy: Mapping, name: str) -> None:
    source, target = (
        _site(draft, mapping(policy.get(end)), name) for end in ("src_registry", "dest_registry")
    )
    rule = RuleDraft(source.name, (target.name,), ("**",), name=name)
    include: list[str] = []
    table: dict[str, Any] = {}
    for each in items(policy.get("filters")):
        kind, value, decoration = at(each, "type"), str(at(each, "value") or ""), at(each, "decoration")
        if kind == "name":
            include.append(value)
        elif kind == "tag":
            table["exclude" if decoration == "excludes" else "include"] = [value]
        elif kind != "resource":
            draft.drop(f"policy {name}: filter by {kind}")
    rule.repositories = tuple(include) or ("**",)
    rule.tables = [table] if table else []
    _namespace(draft, policy, rule, name)
    _trigger(draft, policy, rule, name)
    if at(policy, "enabled") == "false":
        draft.drop(f"policy {name} is disabled: its rule would run; remove it if it should not")
    if at(policy, "deletion") == "true" or at(policy, "replicate_deletion") == "true":
        draft.drop(f"policy {name}: deletions are not replicated")
    draft.add(rule)


def _site(draft: Draft, registry: Mapping, policy: str) -> SiteDraft:
    url = registry.get("url")
    if not isinstance(url, Text) or at(registry, "id") == "0":
        # Harbor leaves its own end out.
        site = draft.site(_LOCAL)
        if not site.remarks:
            site.remarks.append("The Harbor that the policy was exported from: write its URL here.")
            draft.drop(f"policy {policy}: the URL of the Harbor itself is not in an exported policy")
        return site
    parts = urlsplit(url if "://" in url else f"https://{url}")
    site = draft.site(parts.netloc)
    site.plain_http = parts.scheme == "http"
    site.verify = at(registry, "insecure") != "true"
    log_in(
        site,
        str(at(registry, "credential", "access_key") or ""),
        str(at(registry, "credential", "access_secret") or ""),
    )
    return site


def _namespace(draft: Draft, policy: Mapping, rule: RuleDraft, name: str) -> None:
    """`dest_namespace_replace_count`: how many leading components the namespace replaces; -1 all but the last."""
    namespace = policy.get("dest_namespace")
    if not isinstance(namespace, Text) or not namespace:
        return
    count = int(str(policy.get("dest_namespace_replace_count") or "1"))
    if count == 0:
        rule.rename = {"prefix": f"{namespace}/"}
    elif count == -1:
        rule.rename = {"regex": [{"match": "^(?:.*/)?", "replace": f"{namespace}/"}]}
    elif count > 0:
        rule.rename = {"regex": [{"match": f"^(?:[^/]+/){{{count}}}", "replace": f"{namespace}/"}]}
    else:
        draft.drop(f"policy {name}: dest_namespace_replace_count {count}")


def _trigger(draft: Draft, policy: Mapping, rule: RuleDraft, name: str) -> None:
    match at(policy, "trigger", "type"):
        case "scheduled":
            # Six fields, seconds first; five here.
            cron = str(at(policy, "trigger", "trigger_settings", "cron") or "").split()
            rule.cron = " ".join(cron[1:] if len(cron) == 6 else cron).replace("?", "*")
        case "event_based":
            draft.drop(f"policy {name}: event-based; point Harbor's webhook at [webhook.NAME] of the agent")
        case _:
            pass
