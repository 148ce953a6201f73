"""ocync's config. Source: ocync's documentation, "Configuration"."""

from __future__ import annotations

from typing import Any, Final

from replicator.config.importers.draft import (
    Draft,
    RuleDraft,
    choose_platforms,
    log_in,
    rename,
    semver,
    split_name,
)
from replicator.lists.document import Items, Mapping, Node, Text, at, items, mapping

_PRERELEASES: Final = ("*-rc*", "*-alpha*", "*-beta*", "*-pre*", "*-snapshot*", "*-nightly*")
"""ocync leaves these out by itself."""
_WILDCARDS: Final = frozenset("*?[")


def read(document: Node) -> Draft:
    """The draft of an ocync config."""
    draft = Draft()
    names = {
        name: _site(draft, name, mapping(entry))
        for name, entry in mapping(at(document, "registries")).items()
    }
    defaults = mapping(at(document, "defaults"))
    for each in items(at(document, "mappings")):
        entry = mapping(each)
        try:
            _mapping(draft, entry, defaults, document, names)
        except (KeyError, ValueError) as error:
            draft.drop(f"mapping of {entry.get('from')}: {error}")
    return draft


def _site(draft: Draft, name: str, entry: Mapping) -> str:
    site = draft.site(str(entry.get("url") or name))
    if isinstance(entry.get("max_concurrent"), Text):
        site.keys["limits"] = {"concurrency": int(str(entry["max_concurrent"]))}
    credentials = at(entry, "credentials")
    log_in(site, str(at(credentials, "username") or ""), str(at(credentials, "password") or ""))
    if entry.get("token") is not None:
        draft.drop(f"registry {name}: token; set bearer_token on the site")
    return site.host


def _mapping(draft: Draft, entry: Mapping, defaults: Mapping, document: Node, hosts: dict[str, str]) -> None:
    source = hosts[str(entry.get("source") or defaults.get("source"))]
    targets = entry.get("targets") if entry.get("targets") is not None else defaults.get("targets")
    if isinstance(targets, Text):
        group = at(document, "target_groups", targets)
        targets = group if isinstance(group, Items) else Items([targets])
    origin = split_name(f"{source}/{entry.get('from')}")[1]
    goal = str(entry.get("to") or entry.get("from"))
    if entry.get("artifacts") is not None or defaults.get("artifacts") is not None:
        draft.drop(f"mapping of {entry.get('from')}: artifacts has no equal yet")
    rule = RuleDraft(
        draft.site(source).name,
        tuple(draft.site(hosts[str(name)]).name for name in items(targets)),
        (origin,),
        _tables(mapping(entry.get("tags")), mapping(defaults.get("tags"))),
        rename(origin, goal),
    )
    wanted = entry.get("platforms") if entry.get("platforms") is not None else defaults.get("platforms")
    # ECR, which ocync is made for, refuses sparse indexes.
    choose_platforms(rule, _texts(wanted), "rewrite")
    draft.add(rule)


def _tables(tags: Mapping, defaults: Mapping) -> list[dict[str, Any]]:
    """A table for the pipeline, one for names that are always kept, one for globs that get round the soft excludes."""
    merged = {**defaults, **{key: value for key, value in tags.items() if value is not None}}
    soft = [*_texts(defaults.get("exclude")), *_PRERELEASES]
    hard = _texts(tags.get("exclude"))
    included = _texts(merged.get("include"))
    literals = [text for text in included if not _WILDCARDS & set(text)]
    rescued = [text for text in included if _WILDCARDS & set(text)]
    common: dict[str, Any] = {}
    if merged.get("semver") is not None:
        common["semver"] = semver(str(merged["semver"]))
    for key in ("latest", "min_tags"):
        if merged.get(key) is not None:
            common[key] = int(str(merged[key]))
    if merged.get("sort") is not None:
        common["sort"] = str(merged["sort"])
    if merged.get("immutable_tags") is not None:
        common["immutable"] = _texts(merged["immutable_tags"])
    globs = [text for text in _texts(merged.get("glob")) if text != "*"]
    tables: list[dict[str, Any]] = [
        {**({"include": globs} if globs else {}), "exclude": [*hard, *soft], **common}
    ]
    if rescued:
        tables.append({"include": rescued, **({"exclude": hard} if hard else {}), **common})
    if literals:
        tables.append({"include": literals, **({"exclude": hard} if hard else {})})
    return tables


def _texts(node: Node) -> list[str]:
    return [str(text) for text in (node if isinstance(node, Items) else [node]) if text is not None]
