"""Problems within one site's table: keys that do not apply to its kind, and keys that contradict each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from replicator.config.creation import check_creation
from replicator.config.document import KeyPath, Section
from replicator.config.urls import LOOPBACK, host_of
from replicator.errors import ConfigError
from replicator.sites.registry.capabilities import Knowledge

LITERAL = 'is a plain-text secret; move it to a file: { file = "PATH" }'
"""A warning about a secret."""
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
        "parallel_reads",
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


def check_site(site: Section) -> Iterator[str]:
    """The problems of a site's table, each with its place."""
    for contradictions in (_misfits, _login, _auth, check_creation, _tls, _keys):
        yield from (site.problem(place, text) for place, text in contradictions(site.table))
    yield from (f"{site.file}: {text}" for text in _capabilities(site))


def site_warnings(site: Section) -> list[tuple[str, str]]:
    """Warnings about a site, by key: what works but should be changed."""
    secrets = [key for key in _SECRETS if key in site.table]
    found = [
        (key, LITERAL) for key in secrets if isinstance(site.table[key], str) and (key,) not in site.expanded
    ]
    create = site.table.get("create")
    api = create.get("api") if isinstance(create, dict) else None
    if isinstance(api, str) and api.startswith("http://") and host_of(api) not in LOOPBACK:
        found.append(("create", "api sends the token unencrypted; use https://"))
    url, tls = site.table.get("endpoint", site.table.get("url")), site.table.get("tls")
    if secrets and isinstance(url, str) and url.startswith("http://") and host_of(url) not in LOOPBACK:
        found.append(("url", "sends credentials unencrypted; use https://"))
    if isinstance(tls, dict) and tls.get("verify") is False:
        found.append(
            ("tls", "verify = false accepts any server as this site; set ca to its certificate instead")
        )
    return found


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
