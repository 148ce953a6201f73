"""Problems that span keys or tables: unknown sites, and keys that contradict each other.

The checks use the tables as written, not as parsed, so that their problems are reported together with all others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from replicator.config.creation import check_creation
from replicator.config.document import Document, KeyPath, Section, suggest
from replicator.config.trust import check_trust
from replicator.errors import ConfigError
from replicator.sites.registry.capabilities import Knowledge
from replicator.sites.registry.vendors.senders import FORMATS

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_REGISTRY = frozenset(
    {
        "username",
        "password",
        "identity_token",
        "bearer_token",
        "docker_config",
        "tls",
        "proxy",
        "quota",
        "auth",
        "redirects",
        "private_addresses",
        "kind",
        "capabilities",
        "create",
    }
)
_BUCKET = frozenset(
    {"endpoint", "region", "path_style", "profile", "access_key", "secret_key", "session_token"}
    | {"sse", "kms_key", "storage_class"}
)
_SECRETS = ("password", "identity_token", "bearer_token", "secret_key", "session_token")
_IDENTITIES = {
    "ecr": ("profile", "role_arn", "external_id", "region", "registry_id"),
    "acr": ("tenant", "client_id", "client_secret", "assertion_file"),
    "google": ("key_file", "impersonate"),
    "github": ("app_id", "installation_id", "private_key", "api"),
}
"""The keys of `auth` that each kind has."""
_LAYOUT = frozenset({"layout"})
_REMOTE = frozenset({"timeouts", "max_blob_bytes"})
_DIRECTORY = frozenset({"must_exist"})
_KINDS = {
    "https": ("a registry", _REGISTRY | _REMOTE),
    "http": ("a registry", _REGISTRY | _REMOTE),
    "file": ("a directory", _DIRECTORY | _LAYOUT),
    "s3": ("a bucket", _BUCKET | _LAYOUT | _REMOTE),
}
"""The kind of site of each scheme, and the keys that only some kinds have."""
_OWNERS = (
    ("a registry", _REGISTRY),
    ("a bucket", _BUCKET),
    ("a directory", _DIRECTORY),
    ("a bucket or directory", _LAYOUT),
    ("a registry or bucket", _REMOTE),
)
_WAYS = ("token", "header", "url_token", "hmac", "oidc")
"""How a webhook's sender authenticates."""
_LITERAL = 'is a plain-text secret; move it to a file: { file = "PATH" }'


def check(document: Document, problems: list[str]) -> None:
    """Adds every unknown name and every contradiction to `problems`."""
    if document.agent is not None:
        _check_names(document, document.agent, "serves", problems)
    for site in document.sites.values():
        for contradictions in (_misfits, _login, _auth, check_creation, _tls, _keys):
            problems.extend(site.problem(place, text) for place, text in contradictions(site.table))
        problems.extend(f"{site.file}: {text}" for text in _capabilities(site))
    for hook in document.webhooks.values():
        _check_names(document, hook, "site", problems)
        problems.extend(hook.problem(place, text) for place, text in _hook(hook.table))
    for notify in document.notify.values():
        problems.extend(
            notify.problem(place, text) for place, text in _notify(notify.table) if place not in notify.unset
        )
    problems.extend(_listening(document))
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
        site.problem((key,), text) for site in document.sites.values() for key, text in _site_warnings(site)
    ]
    sections: list[tuple[Section, tuple[str, ...]]] = []
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
    # Whoever knows a chat's webhook URL can post to it.
    sections += [(notify, ("url",)) for notify in document.notify.values()]
    found += [section.problem(place, _LITERAL) for section, place in sections if _is_literal(section, place)]
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
    if isinstance(url, str) and url.startswith("http://") and _host(url) not in _LOOPBACK:
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


def _listening(document: Document) -> list[str]:
    """Listening beyond loopback requires a token."""
    section = document.agent
    listen = section.table.get("listen") if section else None
    if section is None or not isinstance(listen, str) or ("listen",) in section.unset:
        return []
    host = listen.rpartition(":")[0].strip("[]")
    if host in _LOOPBACK or (document.http is not None and "token" in document.http.table):
        return []
    return [
        section.problem(("listen",), "is not a loopback address, which requires a token; set token in [http]")
    ]


def _misfits(table: Mapping[str, Any]) -> list[tuple[KeyPath, str]]:
    """Keys that do not apply to the kind of site that the url names."""
    kind, unfit = unfitting(table)
    return [
        ((key,), f"applies only to {owner}, but {kind}:// is {_KINDS[kind][0]}; remove it")
        for key in table
        for owner, theirs in _OWNERS
        if key in theirs and key in unfit
    ]


def unfitting(site: Mapping[str, Any]) -> tuple[str, frozenset[str]]:
    """The scheme of a site's url, and the keys that do not apply to it."""
    url = site.get("url")
    kind = url.partition("://")[0] if isinstance(url, str) else ""
    if kind not in _KINDS:
        return kind, frozenset()
    return kind, (_REGISTRY | _BUCKET | _DIRECTORY | _LAYOUT) - _KINDS[kind][1]


def _keys(table: Mapping[str, Any]) -> list[tuple[KeyPath, str]]:
    """Contradictions in a bucket's credentials and encryption."""
    found: list[tuple[KeyPath, str]] = []
    pairs = (("access_key", "secret_key"), ("secret_key", "access_key"), ("session_token", "access_key"))
    for key, other in pairs:
        if key in table and other not in table:
            found.append(((key,), f"requires {other}; set {other} as well"))
    if "profile" in table and "access_key" in table:
        found.append((("profile",), "cannot be combined with access_key; keep one of them"))
    if "kms_key" in table and table.get("sse") != "aws:kms":
        found.append((("kms_key",), 'requires sse = "aws:kms"'))
    return found


def _login(table: Mapping[str, Any]) -> list[tuple[KeyPath, str]]:
    secrets = [key for key in ("password", "identity_token", "bearer_token") if key in table]
    found: list[tuple[KeyPath, str]] = [
        ((key,), f"cannot be combined with {secrets[0]}; keep one of them") for key in secrets[1:]
    ]
    if "username" in table and secrets == ["bearer_token"]:
        found.append((("username",), "cannot be combined with bearer_token; keep one of them"))
    if "username" in table and not secrets:
        found.append((("username",), "requires password; set password as well"))
    if secrets == ["password"] and "username" not in table:
        found.append((("password",), "requires username; set username as well"))
    return found


def _auth(table: Mapping[str, Any]) -> list[tuple[KeyPath, str]]:
    """Keys of `auth` that belong to another kind, keys that are missing, and a login beside it."""
    auth = table.get("auth")
    if not isinstance(auth, dict):
        return []
    kind = auth.get("kind")
    found: list[tuple[KeyPath, str]] = [
        (("auth", key), f'requires kind = "{owner}"')
        for owner, keys in _IDENTITIES.items()
        for key in keys
        if owner != kind and key in auth
    ]
    if kind == "github":
        lacking = [key for key in ("app_id", "installation_id", "private_key") if key not in auth]
        found += [(("auth", "kind"), f"requires {key}; set {key} as well") for key in lacking]
    if "external_id" in auth and "role_arn" not in auth:
        found.append((("auth", "external_id"), "requires role_arn; set role_arn as well"))
    if "client_secret" in auth and "assertion_file" in auth:
        found.append((("auth", "assertion_file"), "cannot be combined with client_secret; keep one of them"))
    if kind is not None:
        logins = [key for key in ("username", "password", "identity_token", "bearer_token") if key in table]
        found += [
            (("auth", "kind"), f"cannot be combined with {key}; keep one of them") for key in logins[:1]
        ]
    return found


def _tls(table: Mapping[str, Any]) -> list[tuple[KeyPath, str]]:
    tls, url = table.get("tls"), table.get("url")
    if not isinstance(tls, dict):
        return []
    found: list[tuple[KeyPath, str]] = []
    if ("cert" in tls) != ("key" in tls):
        has, lacks = ("cert", "key") if "cert" in tls else ("key", "cert")
        found.append((("tls", has), f"requires {lacks}; set both"))
    if isinstance(url, str) and url.startswith("http://"):
        found.append((("tls",), "cannot be combined with an http:// url; write https:// or remove tls"))
    return found


def _capabilities(site: Section) -> tuple[str, ...]:
    overrides = site.table.get("capabilities")
    if isinstance(overrides, dict):
        try:
            Knowledge(str(site.place[-1]), "", overrides)
        except ConfigError as error:
            return error.problems
    return ()


def _site_warnings(site: Section) -> list[tuple[str, str]]:
    secrets = [key for key in _SECRETS if key in site.table]
    found = [
        (key, _LITERAL) for key in secrets if isinstance(site.table[key], str) and (key,) not in site.expanded
    ]
    create = site.table.get("create")
    api = create.get("api") if isinstance(create, dict) else None
    if isinstance(api, str) and api.startswith("http://") and _host(api) not in _LOOPBACK:
        found.append(("create", "api sends the token unencrypted; use https://"))
    url, tls = site.table.get("endpoint", site.table.get("url")), site.table.get("tls")
    if secrets and isinstance(url, str) and url.startswith("http://") and _host(url) not in _LOOPBACK:
        found.append(("url", "sends credentials unencrypted; use https://"))
    if isinstance(tls, dict) and tls.get("verify") is False:
        found.append(
            ("tls", "verify = false accepts any server as this site; set ca to its certificate instead")
        )
    return found


def _is_web_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in {"https", "http"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of the host or port
        return False


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
