"""Problems that span keys or tables: unknown sites, and keys that contradict each other.

The checks use the tables as written, not as parsed, so that their problems are reported together with all others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from replicator.config.document import Document, KeyPath, Section, suggest
from replicator.config.sitechecks import LITERAL, check_site, site_warnings
from replicator.config.trust import check_trust
from replicator.config.urls import LOOPBACK, host_of
from replicator.sites.registry.vendors.senders import FORMATS

_WAYS = ("token", "header", "url_token", "hmac", "oidc")
"""How a webhook's sender authenticates."""


def check(document: Document, problems: list[str]) -> None:
    """Adds every unknown name and every contradiction to `problems`."""
    if document.agent is not None:
        _check_names(document, document.agent, "serves", problems)
    problems.extend(_sharing(document))
    for site in document.sites.values():
        problems.extend(check_site(site))
    for hook in document.webhooks.values():
        _check_names(document, hook, "site", problems)
        problems.extend(hook.problem(place, text) for place, text in _hook(hook.table))
    for notify in document.notify.values():
        problems.extend(
            notify.problem(place, text) for place, text in _notify(notify.table) if place not in notify.unset
        )
    problems.extend(_listening(document))
    problems.extend(_state(document))
    for rule in document.rules:
        found = [
            *_schedule(rule.table),
            *_referrers(rule.table),
            *_platforms(rule.table),
            *check_trust(rule.table),
        ]
        problems.extend(rule.problem(place, text) for place, text in found)
        for key in ("source", "mirrors", "destinations"):
            _check_names(document, rule, key, problems)
        _check_roles(rule, problems)


def warnings(document: Document) -> list[str]:
    """Warnings: what works but should be changed."""
    found = [
        site.problem((key,), text) for site in document.sites.values() for key, text in site_warnings(site)
    ]
    sections: list[tuple[Section, tuple[str, ...]]] = []
    if document.agent is not None:
        sections.append((document.agent, ("state_password",)))
    if document.http is not None:
        sections.append((document.http, ("token",)))
    sections += [
        (site, place)
        for site in document.sites.values()
        for place in (("auth", "client_secret"), ("auth", "private_key"), ("create", "token"))
    ]
    sections += [
        (hook, place)
        for hook in document.webhooks.values()
        for place in (("token",), ("url_token",), ("header", "value"), ("hmac", "secret"))
    ]
    sections += [(rule, ("sign", "key")) for rule in document.rules]
    # Whoever knows a chat's webhook URL can post to it.
    sections += [(notify, ("url",)) for notify in document.notify.values()]
    found += [section.problem(place, LITERAL) for section, place in sections if _is_literal(section, place)]
    return found


def _is_literal(section: Section, place: tuple[str, ...]) -> bool:
    value: Any = section.table
    for step in place:
        value = value.get(step) if isinstance(value, dict) else None
    return isinstance(value, str) and place not in section.expanded


def _names(table: Mapping[str, Any], key: str) -> list[tuple[KeyPath, str]]:
    value = table.get(key)
    if isinstance(value, str):
        return [((key,), value)]
    if isinstance(value, list):
        return [((key, index), item) for index, item in enumerate(value) if isinstance(item, str)]
    return []


def _check_names(document: Document, section: Section, key: str, problems: list[str]) -> None:
    seen: set[str] = set()
    for place, name in _names(section.table, key):
        if place in section.unset:
            continue
        if name not in document.sites:
            unread = "" if document.complete else " (it may be defined in the file that could not be read)"
            problems.append(
                section.problem(place, f"unknown site {name!r}{unread}; {suggest(name, document.sites)}")
            )
        elif name in seen:
            problems.append(section.problem(place, f"the site {name!r} is listed twice; list it once"))
        seen.add(name)


def _check_roles(rule: Section, problems: list[str]) -> None:
    source = rule.table.get("source")
    for place, name in _names(rule.table, "destinations"):
        if name == source:
            problems.append(
                rule.problem(
                    place, f"the site {name!r} is the source of this rule; destinations must be other sites"
                )
            )
    for place, name in _names(rule.table, "mirrors"):
        if name == source:
            problems.append(
                rule.problem(
                    place, f"the site {name!r} is the source of this rule; mirrors must be other sites"
                )
            )
    problems.extend(rule.problem(place, text) for place, text in _selection(rule.table))
    patterns = _names(rule.table, "repositories")
    if patterns and all(text.startswith("!") for _, text in patterns):
        problems.append(
            rule.problem(
                ("repositories",),
                'contains only exclusions; add a pattern to include, as in ["**", "!scratch/**"]',
            )
        )


def _selection(table: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """A rule takes its images from a catalog or from lists."""
    if "images" not in table:
        for key in ("repositories", "source"):
            if key not in table:
                yield (key,), "is required, unless images names lists"
        return
    if "repositories" in table:
        yield ("images",), "cannot be combined with repositories; keep one of them"
    if "tags" in table:
        yield ("tags",), "cannot be combined with images; the lists name the tags"


def _schedule(table: Mapping[str, Any]) -> list[tuple[KeyPath, str]]:
    if "interval" in table and "cron" in table:
        return [(("cron",), "cannot be combined with interval; keep one of them")]
    if "timezone" in table and "cron" not in table:
        return [(("timezone",), "applies only to cron; set cron or remove timezone")]
    return []


def _platforms(table: Mapping[str, Any]) -> list[tuple[KeyPath, str]]:
    if "platforms" in table:
        return []
    return [
        ((key,), f"applies only to platforms; set platforms or remove {key}")
        for key, default in (("platform_mode", "sparse"), ("missing_platform", "hold"))
        if table.get(key, default) != default
    ]


def _referrers(table: Mapping[str, Any]) -> list[tuple[KeyPath, str]]:
    referrers = table.get("referrers")
    if not isinstance(referrers, dict) or referrers.get("mode") != "none":
        return []
    return [
        (
            ("referrers", key),
            'cannot be combined with mode = "none", which copies nothing; remove one of them',
        )
        for key in ("include", "exclude", "require")
        if referrers.get(key)
    ]


def _hook(table: Mapping[str, Any]) -> list[tuple[KeyPath, str]]:
    ways = [key for key in _WAYS if key in table]
    if not ways:
        return [((), f"has no authentication; set one of {', '.join(_WAYS)}")]
    found: list[tuple[KeyPath, str]] = [
        ((key,), f"cannot be combined with {ways[0]}; keep one of them") for key in ways[1:]
    ]
    kind = table.get("kind")
    sender = FORMATS.get(kind) if isinstance(kind, str) else None
    hmac, header, oidc = table.get("hmac"), table.get("header"), table.get("oidc")
    if isinstance(oidc, dict):
        found.extend(_oidc(oidc))
    if isinstance(hmac, dict) and "header" not in hmac and not (sender and sender.signature):
        kinds = [each.kind for each in FORMATS.values() if each.signature]
        found.append(
            (("hmac",), f"requires header, unless kind is one that signs: {', '.join(sorted(kinds))}")
        )
    if isinstance(header, dict) and "name" not in header and not (sender and sender.secret_header):
        kinds = [each.kind for each in FORMATS.values() if each.secret_header]
        found.append((("header",), f"requires name, unless kind is one of {', '.join(sorted(kinds))}"))
    return found


def _oidc(table: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    if "keys_url" in table and "keys_file" in table:
        yield ("oidc", "keys_file"), "cannot be combined with keys_url; keep one of them"
    url = table.get("keys_url")
    if isinstance(url, str) and url.startswith("http://") and host_of(url) not in LOOPBACK:
        yield ("oidc", "keys_url"), "must be https://: who can change the keys can sign anything"


def _notify(table: Mapping[str, Any]) -> list[tuple[KeyPath, str]]:
    if "url" in table and "command" in table:
        return [(("command",), "cannot be combined with url; keep one of them")]
    if "url" not in table and "command" not in table:
        return [((), "has no receiver; set url or command")]
    url = table.get("url")
    if isinstance(url, str) and url and not _is_web_address(url):
        # a secret, so it is not repeated
        return [(("url",), "is not a valid URL; write https://HOST/PATH")]
    return []


def _sharing(document: Document) -> list[str]:
    """A fleet without a database that its agents share."""
    section = document.fleet
    if section is None or section.table.get("enabled") is not True:
        return []
    agent = document.agent
    if agent is not None and (("state",) in agent.unset or _is_shared(agent)):
        return []
    return [
        section.problem(
            ("enabled",),
            'requires a state that agents can share; set state = "postgresql://USER@HOST/DATABASE" in [agent]',
        )
    ]


def _state(document: Document) -> list[str]:
    """A password that no state takes."""
    section = document.agent
    if section is None or "state_password" not in section.table:
        return []
    if ("state",) in section.unset or _is_shared(section):
        return []
    return [
        section.problem(("state_password",), "is only for a state on PostgreSQL; set state, or remove it")
    ]


def _is_shared(agent: Section) -> bool:
    """Whether the state is on PostgreSQL."""
    return str(agent.table.get("state", "")).startswith("postgresql://")


def _listening(document: Document) -> list[str]:
    """Listening beyond loopback requires a token."""
    section = document.agent
    listen = section.table.get("listen") if section else None
    if section is None or not isinstance(listen, str) or ("listen",) in section.unset:
        return []
    host = listen.rpartition(":")[0].strip("[]")
    if host in LOOPBACK or (document.http is not None and "token" in document.http.table):
        return []
    return [
        section.problem(("listen",), "is not a loopback address, which requires a token; set token in [http]")
    ]


def _is_web_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in {"https", "http"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of the host or port
        return False
