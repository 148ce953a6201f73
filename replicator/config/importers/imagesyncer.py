"""image-syncer's auth and images files, or its one older file. Source: image-syncer's README."""

from __future__ import annotations

import os
from typing import Any

from replicator.config.importers.draft import Draft, RuleDraft, log_in, regex, rename, split_name, split_tag
from replicator.lists.document import Items, Mapping, Node, Text, at, mapping


def read(documents: list[Node]) -> Draft:
    """The draft of an images file, with or without its auth file."""
    draft = Draft()
    for document in documents:
        logins = at(document, "auth") if at(document, "auth") is not None else document
        for name, login in mapping(logins).items():
            if isinstance(login, Mapping) and (
                "username" in login or "password" in login or "insecure" in login
            ):
                _login(draft, name, login)
    for document in documents:
        images = at(document, "images") if at(document, "images") is not None else document
        for source, targets in mapping(images).items():
            if isinstance(targets, Mapping):
                continue  # a login
            for target in targets if isinstance(targets, Items) else [targets]:
                try:
                    _pair(draft, source, str(target or ""))
                except ValueError as error:
                    draft.drop(f"{source}: {error}")
    return draft


def _login(draft: Draft, name: str, login: Mapping) -> None:
    host, slash, namespace = name.partition("/")
    site = draft.site(host)
    if slash:
        draft.drop(f"auth of {name}: a login for {namespace} alone; make a second site with the same URL")
        return
    site.plain_http = at(login, "insecure") == "true" or site.plain_http
    log_in(site, str(at(login, "username") or ""), str(at(login, "password") or ""))


def _pair(draft: Draft, source: str, target: str) -> None:
    if not target:
        target = _default_target(source)
    name, tags = _tags(source)
    host, repository = split_name(name)
    target_name, target_tag = split_tag(target)
    target_host, target_repository = split_name(target_name)
    renamed: dict[str, Any] = rename(repository, target_repository)
    if target_tag and len(tags) == 1 and target_tag != tags[0]:
        renamed["tags"] = {"regex": [{"match": f"^{tags[0]}$", "replace": target_tag}]}
    tables = [{"include": tags}] if tags else []
    draft.add(
        RuleDraft(draft.site(host).name, (draft.site(target_host).name,), (repository,), tables, renamed)
    )


def _default_target(source: str) -> str:
    registry, namespace = os.environ.get("DEFAULT_REGISTRY"), os.environ.get("DEFAULT_NAMESPACE")
    if not registry or not namespace:
        raise ValueError(
            "no destination; image-syncer takes --registry and --namespace: set $DEFAULT_REGISTRY and $DEFAULT_NAMESPACE"
        )
    return f"{registry}/{namespace}/{split_tag(source.partition(',')[0])[0].rpartition('/')[2]}"


def _tags(source: str) -> tuple[str, list[str]]:
    """The name, and its tags: none (all), some, or a regular expression between slashes."""
    head, colon, expression = source.partition(":/")
    if colon and expression.endswith("/"):
        return head, [regex(expression[:-1], anchored=False)]
    name, tags = split_tag(source)
    return name, [Text(tag) for tag in tags.removeprefix("@").split(",") if tag]
