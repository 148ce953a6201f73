"""regsync's config. Source: regclient's documentation, "regsync configuration"."""

from __future__ import annotations

from typing import Any, Final

from replicator.config.importers.draft import (
    Draft,
    RuleDraft,
    choose_platform,
    choose_platforms,
    log_in,
    regex,
    rename,
    repository_glob,
    semver,
    split_name,
    split_tag,
)
from replicator.lists.document import Mapping, Node, Text, at, items, mapping

_SAME: Final = frozenset(
    {
        "source",
        "target",
        "type",
        "tags",
        "tagSets",
        "repos",
        "interval",
        "schedule",
        "ratelimit",
        "platform",
        "platforms",
    }
)
_HARMLESS: Final = frozenset(
    {
        "fastCopy",
        "forceRecursive",
        "mediaTypes",
        "parallel",
        "userAgent",
        "cacheCount",
        "cacheTime",
        "blobLimit",
    }
)
"""Ways to copy, not what is copied."""


def read(document: Node) -> Draft:
    """The draft of a regsync config."""
    draft = Draft()
    defaults = mapping(at(document, "defaults"))
    for entry in items(at(document, "creds")):
        _login(draft, mapping(entry))
    for step in items(at(document, "sync")):
        try:
            _step(draft, mapping(step), defaults)
        except ValueError as error:
            draft.drop(f"sync of {at(step, 'source')}: {error}")
    if defaults.get("ratelimit") is not None:
        draft.drop("defaults.ratelimit: use quota = { reserve = N } on the site")
    return draft


def _login(draft: Draft, entry: Mapping) -> None:
    site = draft.site(str(entry.get("registry") or ""))
    match at(entry, "tls"):
        case "disabled":
            site.plain_http = True
        case "insecure":
            site.verify = False
        case _:
            pass
    log_in(site, str(entry.get("user") or ""), str(entry.get("pass") or ""))
    if isinstance(entry.get("reqPerSec"), Text):
        site.keys["limits"] = {"requests_per_second": float(str(entry["reqPerSec"]))}
    for key in ("mirrors", "regcert", "clientCert", "token", "credHelper", "hostname", "pathPrefix"):
        if entry.get(key) is not None:
            draft.drop(f"creds of {site.host}: {key}")


def _step(draft: Draft, step: Mapping, defaults: Mapping) -> None:
    merged = Mapping({**defaults, **step})
    schedule = _schedule(merged)
    remarks = [
        f"{key} of regsync has no equal yet"
        for key in sorted(merged.keys() - _SAME - _HARMLESS - {"skipDockerConfig"})
        if merged[key] not in (None, "false")
    ]
    for remark in remarks:
        draft.drop(f"sync of {merged.get('source')}: {remark}")
    match at(merged, "type"):
        case "image":
            rule = _image(draft, merged, schedule)
        case "repository":
            rule = _repository(draft, merged, schedule)
        case "registry":
            rule = _registry(draft, merged, schedule)
        case other:
            raise ValueError(f"type {other} is not known")
    if merged.get("platform"):
        choose_platform(rule, str(merged["platform"]), "regsync")
    elif merged.get("platforms") is not None:
        choose_platforms(rule, [str(text) for text in items(merged["platforms"])], "sparse")
    draft.add(rule)


def _schedule(step: Mapping) -> tuple[str, str]:
    """Interval and cron; a schedule wins, as in regsync."""
    if isinstance(step.get("schedule"), Text):
        return "", str(step["schedule"])
    return str(step["interval"]) if isinstance(step.get("interval"), Text) else "", ""


def _image(draft: Draft, step: Mapping, schedule: tuple[str, str]) -> RuleDraft:
    source, tag = split_tag(str(step.get("source")))
    target, target_tag = split_tag(str(step.get("target")))
    host, repository = split_name(source)
    target_host, target_repository = split_name(target)
    tag = tag or "latest"
    pin = tag.removeprefix("@")
    named = f"{target_tag}@{pin}" if tag.startswith("@") and target_tag else pin
    renamed: dict[str, Any] = rename(repository, target_repository)
    if target_tag and not tag.startswith("@") and target_tag != tag:
        renamed["tags"] = {"regex": [{"match": f"^{tag}$", "replace": target_tag}]}
    return RuleDraft(
        draft.site(host).name,
        (draft.site(target_host).name,),
        (repository,),
        [{"include": [named]}],
        renamed,
        *schedule,
    )


def _repository(draft: Draft, step: Mapping, schedule: tuple[str, str]) -> RuleDraft:
    host, repository = split_name(str(step.get("source")))
    target_host, target = split_name(str(step.get("target")))
    return RuleDraft(
        draft.site(host).name,
        (draft.site(target_host).name,),
        (repository,),
        _tables(step),
        rename(repository, target),
        *schedule,
    )


def _registry(draft: Draft, step: Mapping, schedule: tuple[str, str]) -> RuleDraft:
    host, _, below = str(step.get("source")).partition("/")
    target_host, _, prefix = str(step.get("target")).partition("/")
    patterns: list[str] = []
    for sign, key in (("", "allow"), ("!", "deny")):
        for expression in items(at(step, "repos", key)):
            glob = repository_glob(str(expression))
            if glob is None:
                draft.drop(
                    f"sync of {step.get('source')}: repos.{key} {expression!r} is not a glob; write one by hand"
                )
            else:
                patterns.append(f"{sign}{glob}")
    if not any(not pattern.startswith("!") for pattern in patterns):
        patterns.insert(0, f"{below}/**" if below else "**")
    return RuleDraft(
        draft.site(host).name,
        (draft.site(target_host).name,),
        tuple(patterns),
        _tables(step),
        {"prefix": f"{prefix}/"} if prefix else {},
        *schedule,
    )


def _tables(step: Mapping) -> list[dict[str, Any]]:
    """One table for each set of filters; regsync takes what any of them allows."""
    sets = [at(step, "tags"), *items(at(step, "tagSets"))]
    tables: list[dict[str, Any]] = []
    for each in sets:
        if each is None:
            continue
        table: dict[str, Any] = {}
        if allowed := [regex(str(text), anchored=True) for text in items(at(each, "allow"))]:
            table["include"] = allowed
        if denied := [regex(str(text), anchored=True) for text in items(at(each, "deny"))]:
            table["exclude"] = denied
        ranges = [semver(str(text)) for text in items(at(each, "semverRange"))]
        tables += [{**table, "semver": text} for text in ranges] or [table]
    return [table for table in tables if table]
