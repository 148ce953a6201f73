"""dregsy's config. Source: dregsy's README, and its design document on image matching."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from replicator.config.importers.draft import (
    Draft,
    RuleDraft,
    choose_platform,
    log_in,
    regex,
    rename,
    repository_glob,
    semver,
)
from replicator.lists.document import Mapping, Node, Text, at, items, mapping
from replicator.model.names import DOCKER_HUB


def read(document: Node) -> Draft:
    """The draft of a dregsy config."""
    draft = Draft()
    for task in items(at(document, "tasks")):
        name = str(at(task, "name") or "task")
        sites = [_site(draft, mapping(at(task, end)), name) for end in ("source", "target")]
        interval = at(task, "interval")
        for each in items(at(task, "mappings")):
            try:
                rule = _rule(draft, mapping(each), sites[0], sites[1])
                platform = str(at(each, "platform") or "")
                choose_platform(rule, "" if platform == "all" else platform, "dregsy")
            except ValueError as error:
                draft.drop(f"task {name}: {at(each, 'from')}: {error}")
                continue
            rule.name = name
            rule.interval = f"{interval}s" if isinstance(interval, Text) else ""
            draft.add(rule)
    return draft


def _site(draft: Draft, end: Mapping, task: str) -> str:
    site = draft.site(str(end.get("registry") or ""))
    if at(end, "skip-tls-verify") == "true":
        site.verify = False
    if end.get("auth-refresh") is not None:
        site.remarks.append("auth-refresh: the credentials of ECR are renewed by themselves")
    auth = at(end, "auth")
    if isinstance(auth, Text) and auth != "none":
        try:
            login = json.loads(base64.b64decode(auth, validate=True))
            log_in(site, str(login["username"]), str(login["password"]))
        except (binascii.Error, ValueError, KeyError, TypeError):
            draft.drop(f"task {task}: auth of {site.host} is not base64 of JSON with username and password")
    return site.name


def _rule(draft: Draft, mapped: Mapping, source: str, target: str) -> RuleDraft:
    origin, goal = str(mapped.get("from") or ""), mapped.get("to")
    is_hub = any(site.host == DOCKER_HUB and site.name == source for site in draft.sites.values())
    if origin.startswith("regex:"):
        expression = origin.removeprefix("regex:").strip()
        glob = repository_glob(expression)
        if glob is None:
            raise ValueError(f"{expression!r} is not a glob; write `repositories` by hand")
        return RuleDraft(source, (target,), (glob,), _tables(mapped), _renamed(goal, expression))
    repository = f"library/{origin}" if is_hub and "/" not in origin else origin
    to = str(goal) if isinstance(goal, Text) else repository
    return RuleDraft(source, (target,), (repository,), _tables(mapped), rename(repository, to))


def _renamed(goal: Node, expression: str) -> dict[str, Any]:
    if not isinstance(goal, Text):
        return {}
    if not goal.startswith("regex:"):
        return {"prefix": f"{goal.removesuffix('/')}/"}
    match, comma, replace = goal.removeprefix("regex:").strip().partition(",")
    if not comma:
        raise ValueError(f"{goal!r} has no replacement for {expression}")
    # Go writes a group as $1, Python as \1.
    return {"regex": [{"match": match.strip(), "replace": replace.strip().replace("$", "\\")}]}


def _tables(mapped: Mapping) -> list[dict[str, Any]]:
    """Dregsy takes a tag that any entry selects, so each kind of entry is a table of its own."""
    exact: list[str] = []
    tables: list[dict[str, Any]] = []
    for tag in items(mapped.get("tags")):
        text = str(tag)
        kind, _, value = text.partition(":")
        value = value.strip()
        if kind == "semver":
            tables.append({"semver": semver(value)})
        elif kind == "regex" and value.startswith("!"):
            tables.append({"exclude": [regex(value[1:].strip(), anchored=False)]})
        elif kind == "regex":
            tables.append({"include": [regex(value, anchored=False)]})
        elif kind in {"keep", "prune"}:
            raise ValueError(f"tags: {text!r} has no equal; see `latest` and `exclude`")
        else:
            exact.append(text)
    return [*([{"include": exact}] if exact else []), *tables]
