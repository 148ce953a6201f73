"""A first config as commented text, from a few answers. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from replicator.sites.registry.vendors.known import by_host

_NAME: Final = re.compile(r"[^a-z0-9-]+")
_FIRST_LABELS: Final = frozenset({"registry", "www", "docker", "index"})


@dataclass(frozen=True, slots=True)
class Answers:
    """What a first config is about: URLs of sites, patterns of repositories, and a period like `5m`."""

    source: str
    destinations: tuple[str, ...]
    repositories: tuple[str, ...]
    interval: str


def site_url(text: str) -> str:
    """The URL of a site as somebody names it: a host becomes https://, a loopback address http://, a path file://."""
    text = text.strip()
    if "://" in text:
        return text
    if text.startswith("/"):
        return f"file://{text}"
    host = text.partition("/")[0].rpartition(":")[0] or text.partition("/")[0]
    return f"{'http' if host in {'localhost', '127.0.0.1', '[::1]'} else 'https'}://{text}"


def site_names(urls: Sequence[str]) -> list[str]:
    """A short name for each site, by its host or folder; all different."""
    names: list[str] = []
    for url in urls:
        wanted = _name(url)
        taken = sum(each == wanted or each.startswith(f"{wanted}-") for each in names)
        names.append(f"{wanted}-{taken + 1}" if taken else wanted)
    return names


def first_config(answers: Answers) -> str:
    """The config as TOML, with comments that say what may be added."""
    urls = [answers.source, *answers.destinations]
    names = site_names(urls)
    sites = "\n".join(_site(name, url) for name, url in zip(names, urls, strict=True))
    patterns = ", ".join(map(_quoted, answers.repositories))
    destinations = ", ".join(map(_quoted, names[1:]))
    return f"""\
# Written by `replicator init`. docs/configuration.md and config.example.toml have every key.

# [agent]
# name   = "here"                      # this data center; default: the host's name
# listen = "127.0.0.1:9650"            # status page, API, metrics and webhooks of `replicator run`

{sites}
[[rule]]
name         = "main"
source       = {_quoted(names[0])}
destinations = [{destinations}]
repositories = [{patterns}]            # `*` stays within one path component, `**` crosses; "!team/**" leaves out
interval     = {_quoted(answers.interval)}                   # for `replicator run`; or cron = "*/5 * * * *"
# tags       = {{ include = ["v*"], exclude = ["*-rc*"], latest = 10 }}
# rename     = {{ strip = "team/", prefix = "mirror/" }}
"""


def _site(name: str, url: str) -> str:
    lines = [f"[site.{name}]", f"url = {_quoted(url)}"]
    if url.startswith("s3://"):
        lines += ['layout = "distribution"               # or "oci"', '# region = "eu-central-1"']
    elif url.startswith(("http://", "https://")):
        lines += _login(url, name)
    return "\n".join(lines) + "\n"


def _login(url: str, name: str) -> list[str]:
    host = urlsplit(url).hostname or ""
    vendor = by_host(host)
    lines = [f"# {vendor.title}: docs/registries/{vendor.kind}.md"] if vendor is not None else []
    if vendor is not None and vendor.identity is not None:
        return [*lines, "# The identity of this machine is used; see `auth` on that page."]
    return [
        *lines,
        f"# Without these, the credentials of `docker login {login_host(url)}` are used.",
        '# username = "mirror"',
        f'# password = {{ file = "/etc/replicator/{name}.password" }}',
    ]


def credentials_hint(url: str) -> str:
    """What gives replicator credentials for a registry: the identity that its cloud implies, else those of docker."""
    host = login_host(url)
    vendor = by_host(urlsplit(url).hostname or "")
    if vendor is not None and vendor.identity is not None:
        return f"give this machine an identity for {host}, or set auth of the site (docs/registries/{vendor.kind}.md)"
    return f"docker login {host}, or set username and password of the site"


def login_host(url: str) -> str:
    """What `docker login` calls a registry."""
    return urlsplit(url).netloc


def _name(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme == "file":
        text = parts.path.rstrip("/").rpartition("/")[2]
    elif parts.scheme == "s3":
        text = parts.netloc
    else:
        host = (parts.hostname or "").lower()
        vendor = by_host(host)
        labels = [each for each in host.split(".") if each not in _FIRST_LABELS]
        text = vendor.kind if vendor is not None else (labels or ["registry"])[0]
        text = f"local-{parts.port}" if host in {"localhost", "127.0.0.1", "::1"} and parts.port else text
    return _NAME.sub("-", text.lower()).strip("-")[:32] or "site"


def _quoted(text: str) -> str:
    """A TOML basic string: JSON's, without what JSON leaves as it is and TOML does not."""
    return json.dumps(text).replace("\x7f", "\\u007f").replace("${", "$${")
