"""skopeo sync's YAML. Source: skopeo-sync(1), "YAML file content"."""

from __future__ import annotations

from typing import Any

from replicator.config.importers.draft import (
    Draft,
    RuleDraft,
    SiteDraft,
    log_in,
    regex,
    rename,
    semver,
    split_name,
)
from replicator.lists.document import Mapping, Node, Text, at, items, mapping


def read(document: Node, destination: str, *, scoped: bool) -> Draft:
    """The draft of a skopeo sync file.

    Args:
        document: the file.
        destination: `HOST[/PATH]`, as on skopeo's command line.
        scoped: as `--scoped`: the source's host and path are kept below the destination; without, the last component is.
    """
    draft = Draft()
    target = draft.site(destination.partition("/")[0])
    path = destination.partition("/")[2].strip("/")
    for host, entry in mapping(document).items():
        site = draft.site(host)
        _settings(draft, site, mapping(entry))
        for repository, tables in _images(draft, site, mapping(entry)):
            named = f"{host}/{repository}" if scoped else repository.rpartition("/")[2]
            whole = f"{path}/{named}" if path else named
            draft.add(RuleDraft(site.name, (target.name,), (repository,), tables, rename(repository, whole)))
    return draft


def _settings(draft: Draft, site: SiteDraft, entry: Mapping) -> None:
    if at(entry, "tls-verify") == "false" and not site.plain_http:
        site.verify = False
        site.remarks.append(
            "skopeo also speaks plain HTTP with tls-verify: false; if the registry does, write http://"
        )
    if entry.get("cert-dir") is not None:
        draft.drop(f"{site.host}: cert-dir {entry['cert-dir']}: name its files in tls = {{ ca, cert, key }}")
    log_in(
        site,
        str(at(entry, "credentials", "username") or ""),
        str(at(entry, "credentials", "password") or ""),
    )


def _images(draft: Draft, site: SiteDraft, entry: Mapping) -> list[tuple[str, list[dict[str, Any]]]]:
    """Repositories with their tables; a repository that several keys name has all that any of them selects."""
    found: dict[str, list[dict[str, Any]]] = {}

    def add(name: str, table: dict[str, Any] | None) -> None:
        repository = split_name(f"{site.host}/{name}")[1]
        tables = found.setdefault(repository, [])
        tables += [table] if table else []

    for name, tags in mapping(at(entry, "images")).items():
        named = [str(tag) for tag in items(tags) if isinstance(tag, Text)]
        exact = [tag for tag in named if ":" not in tag]
        for digest in (tag for tag in named if ":" in tag):
            draft.drop(
                f"{site.host}/{name}@{digest}: a digest without a tag: name it in a list (docs/lists.md)"
            )
        if exact or not named:
            add(name, {"include": exact} if exact else None)
    for name, expression in mapping(at(entry, "images-by-tag-regex")).items():
        try:
            add(name, {"include": [regex(str(expression), anchored=False)]})
        except ValueError as error:
            draft.drop(f"{site.host}/{name}: {error}")
    for name, versions in mapping(at(entry, "images-by-semver")).items():
        add(name, {"semver": semver(str(versions))})
    return list(found.items())
