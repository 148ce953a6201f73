"""A draft as TOML, with comments."""

from __future__ import annotations

import tomlkit
from tomlkit.items import AoT, Table

from replicator.config.importers.draft import Draft, RuleDraft, SiteDraft
from replicator.config.toml import inline, item


def render(draft: Draft, title: str) -> str:
    """The config. `title` is its first comment; what was dropped follows it."""
    document = tomlkit.document()
    document.add(tomlkit.comment(title))
    for text in draft.dropped:
        document.add(tomlkit.comment(f"NOT TAKEN OVER: {text}"))
    document.add(tomlkit.nl())
    sites = tomlkit.table(is_super_table=True)
    for site in draft.sites.values():
        sites.add(site.name, _site(site))
    if draft.sites:
        document.add("site", sites)
    rules = AoT([_rule(rule, name) for rule, name in zip(draft.rules, _names(draft), strict=True)])
    if draft.rules:
        document.add("rule", rules)
    return tomlkit.dumps(document)


def _site(site: SiteDraft) -> Table:
    table = tomlkit.table()
    for text in site.remarks:
        table.add(tomlkit.comment(text))
    host = "registry-1.docker.io" if site.host == "docker.io" else site.host
    table.add("url", f"{'http' if site.plain_http else 'https'}://{host}")
    if site.username:
        table.add("username", site.username)
    if site.password:
        table.add("password", inline({"env": site.password}))
    if not site.verify and not site.plain_http:
        table.add("tls", inline({"verify": False}))
    for key, value in site.keys.items():
        table.add(key, item(value))
    return table


def _rule(rule: RuleDraft, name: str) -> Table:
    table = tomlkit.table()
    for text in rule.remarks:
        table.add(tomlkit.comment(text))
    table.add("name", name)
    table.add("source", rule.source)
    table.add("destinations", list(rule.destinations))
    repositories = tomlkit.array()
    repositories.extend(rule.repositories)
    table.add("repositories", repositories.multiline(len(rule.repositories) > 3))
    if len(rule.tables) == 1:
        table.add("tags", item(rule.tables[0]))
    elif rule.tables:
        tables = tomlkit.array()
        tables.extend(inline(each) for each in rule.tables)
        table.add("tags", tables.multiline(multiline=True))
    if rule.platforms:
        table.add("platforms", list(rule.platforms))
        table.add("platform_mode", rule.platform_mode)
    for key, value in (("rename", rule.rename), ("interval", rule.interval), ("cron", rule.cron)):
        if value:
            table.add(key, item(value))
    return table


def _names(draft: Draft) -> list[str]:
    """A name for each rule: its own, else the last component of its first repository; numbered where taken."""
    names: list[str] = []
    for rule in draft.rules:
        wanted = rule.name or rule.repositories[0].rpartition("/")[2].strip("*!{}[]") or rule.source
        base = (
            "".join(char if char.isalnum() or char in "-_." else "-" for char in wanted).strip("-_.")[:56]
            or "rule"
        )
        name, number = base, 2
        while name in names:
            name, number = f"{base}-{number}", number + 1
        names.append(name)
    return names
