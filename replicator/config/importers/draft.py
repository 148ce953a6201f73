"""A config being drafted: sites by host, rules, and what has no equal here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from replicator.model.names import DOCKER_HUB, parse_host
from replicator.policy.pattern import parse_tag_pattern
from replicator.policy.platforms import PlatformMode, parse_platform, platform_text

_LOOPBACK: Final = re.compile(r"(localhost|127\.[0-9.]+|\[::1\])(:[0-9]+)?")


@dataclass(slots=True)
class SiteDraft:
    """A registry. `password` is the name of an environment variable; the value is never taken over."""

    name: str
    host: str
    plain_http: bool = False
    verify: bool = True
    username: str = ""
    password: str = ""
    keys: dict[str, Any] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


@dataclass(slots=True)
class RuleDraft:
    """A rule from one site to others. `tables` are the tables of `tags`, in TOML's types."""

    source: str
    destinations: tuple[str, ...]
    repositories: tuple[str, ...]
    tables: Sequence[Mapping[str, Any]] = ()
    rename: Mapping[str, Any] = field(default_factory=dict)
    interval: str = ""
    cron: str = ""
    name: str = ""
    remarks: list[str] = field(default_factory=list)
    platforms: tuple[str, ...] = ()
    platform_mode: PlatformMode = "sparse"

    @property
    def kind(self) -> tuple[object, ...]:
        """Rules that are alike in all but their repositories become one."""
        shape = (repr(self.tables), repr(self.rename), self.interval, self.cron, tuple(self.remarks))
        return (self.source, self.destinations, self.name, self.platforms, self.platform_mode, *shape)


def choose_platforms(rule: RuleDraft, texts: Sequence[str], mode: PlatformMode) -> None:
    """Sets what a rule copies of multi-platform images; no texts leave the rule as it is.

    Raises:
        ValueError: one is not a platform.
    """
    rule.platforms = tuple(dict.fromkeys(platform_text(parse_platform(text)) for text in texts))
    if rule.platforms:
        rule.platform_mode = mode


def choose_platform(rule: RuleDraft, text: str, tool: str) -> None:
    """Sets the one platform that dregsy or regsync copies, with a remark on the difference; "" leaves the rule as it is.

    Raises:
        ValueError: it is not a platform.
    """
    if text:
        choose_platforms(rule, [text], "rewrite")
        rule.remarks.append(
            f"{tool} puts the image of the platform itself under the tag; here the tag names an index of that platform alone."
        )


class Draft:
    """What an importer fills in.

    `dropped` is what the other tool's config says and this one cannot: each a sentence. It weighs: with it, the two do
    not do the same. Remarks on sites and rules only explain.
    """

    def __init__(self) -> None:
        self.sites: dict[str, SiteDraft] = {}
        self.rules: list[RuleDraft] = []
        self.dropped: list[str] = []

    def site(self, host: str) -> SiteDraft:
        """The site of a host, made on first use. Raises ValueError where it is not a host name."""
        host = parse_host(host.lower().removesuffix("/"))
        if host not in self.sites:
            is_loopback = _LOOPBACK.fullmatch(host) is not None
            self.sites[host] = SiteDraft(self._name(host), host, plain_http=is_loopback)
        return self.sites[host]

    def add(self, rule: RuleDraft) -> None:
        """Adds a rule, to one that is alike where there is one; a rule may not lead to its own source, as theirs may."""
        if rule.source in rule.destinations:
            self.drop(
                f"{', '.join(rule.repositories)}: copied within {rule.source}: write a second site with the same URL"
            )
            rule.destinations = tuple(each for each in rule.destinations if each != rule.source)
            if not rule.destinations:
                return
        for known in self.rules:
            if known.kind == rule.kind:
                known.repositories = tuple(dict.fromkeys((*known.repositories, *rule.repositories)))
                return
        self.rules.append(rule)

    def drop(self, what: str) -> None:
        """Notes what has no equal, once."""
        if what not in self.dropped:
            self.dropped.append(what)

    def _name(self, host: str) -> str:
        name = re.sub(r"[^A-Za-z0-9-]+", "-", host).strip("-")[:60] or "site"
        taken = {site.name for site in self.sites.values()}
        number = 2
        wanted = name
        while name in taken:
            name, number = f"{wanted}-{number}", number + 1
        return name


def variable(site: SiteDraft) -> str:
    """The environment variable that a site's password is expected in: a name that a shell can set."""
    name = re.sub(r"[^A-Z0-9]+", "_", site.name.upper()) + "_PASSWORD"
    return f"REGISTRY_{name}" if name[0].isdigit() else name


def log_in(site: SiteDraft, username: str, password: str) -> None:
    """Sets a login. A password that is a reference to a variable keeps it; a literal one is left out, with a remark."""
    if not username and not password:
        return
    site.username = re.sub(r"\{\{\s*env \"(\w+)\"\s*\}\}", r"${\1}", username)
    reference = re.fullmatch(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)\}?|\{\{\s*env \"(\w+)\"\s*\}\}", password)
    if reference is not None:
        site.password = reference[1] or reference[2]
    else:
        site.password = variable(site)
        site.remarks.append(
            f"The password is not taken over: set ${site.password}, or use a file or credential."
        )


def split_name(text: str) -> tuple[str, str]:
    """Host and path of a name without tag, as docker reads it: `alpine` is (`docker.io`, `library/alpine`)."""
    head, slash, tail = text.partition("/")
    if slash and ("." in head or ":" in head or head == "localhost"):
        host, path = parse_host(head), tail
    else:
        host, path = DOCKER_HUB, text
    return host, f"library/{path}" if host == DOCKER_HUB and "/" not in path else path


def split_tag(text: str) -> tuple[str, str]:
    """A name and its tag or `@digest`, the second empty if it has neither."""
    name, at, digest = text.partition("@")
    if at:
        return name, f"@{digest}"
    head, slash, last = text.rpartition("/")
    last, _, tag = last.partition(":")
    return f"{head}{slash}{last}", tag


def rename(source: str, target: str) -> dict[str, Any]:
    """What makes the target of the source: nothing, strip and prefix, or a replacement of the whole name."""
    if source == target:
        return {}
    ours, theirs = source.split("/"), target.split("/")
    common = 0
    while common < min(len(ours), len(theirs)) and ours[-1 - common] == theirs[-1 - common]:
        common += 1
    if not common:
        return {"regex": [{"match": f"^{re.escape(source)}$", "replace": target}]}
    strip, prefix = "/".join(ours[:-common]), "/".join(theirs[:-common])
    return {key: f"{value}/" for key, value in (("strip", strip), ("prefix", prefix)) if value}


def regex(expression: str, *, anchored: bool) -> str:
    """A tag pattern of an expression. Not `anchored`: it may match anywhere, as Go's MatchString does.

    A tag that is written out is that tag. Raises ValueError where Python does not read the expression.
    """
    text = expression.removeprefix("^").removesuffix("$") if anchored else expression
    plain = text.replace("\\.", ".") if anchored else ""
    if plain and re.fullmatch(r"[A-Za-z0-9_-]+", plain):
        return plain
    if not anchored:
        text = text[1:] if text.startswith("^") else f".*{text}"
        text = text[:-1] if text.endswith("$") and not text.endswith("\\$") else f"{text}.*"
        if "|" in expression:
            text = f".*(?:{expression}).*"
    return parse_tag_pattern(f"re:{text}").text


def semver(expression: str) -> str:
    """A version range in our syntax: a comma between conditions, as others write it, is a space."""
    return " ".join(expression.replace(",", " ").split())


def repository_glob(expression: str) -> str | None:
    """The glob that means the same as a regular expression for repositories; None if no glob means that."""
    text = expression.removeprefix("^").removesuffix("$")
    parts: list[str] = []
    while text:
        for written, glob in (
            (".*", "**"),
            (".+", "**"),
            ("[^/]+", "*"),
            ("[^/]*", "*"),
            ("\\.", "."),
            ("\\-", "-"),
        ):
            if text.startswith(written):
                parts.append(glob)
                text = text[len(written) :]
                break
        else:
            if not re.match(r"[a-z0-9/_-]", text):
                return None
            parts.append(text[0])
            text = text[1:]
    return "".join(parts) or None
