"""How an explanation words filters, times and what ends a hold. Pure."""

from __future__ import annotations

import datetime as dt

from replicator.errors import HoldKind
from replicator.policy.rule import Rule, TagSelection
from replicator.report import format_seconds


def filter_text(table: TagSelection, name: str) -> str:
    """A filter as the config has it."""
    values = {
        "include": ", ".join(each.text for each in table.include),
        "exclude": ", ".join(each.text for each in table.exclude),
        "semver": str(table.semver),
        "latest": f"{table.latest} by {table.sort}",
        "newer_than": format_seconds(table.newer_than or 0),
    }
    return f"{name} {values[name]}" if name in values else name


def moment(at: float, now: float) -> str:
    """A time, and how far away it is; both in epoch seconds."""
    text = dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f"{text} ({f'in {format_seconds(at - now)}' if at > now else f'{format_seconds(now - at)} ago'})"


def end_of_hold(kind: HoldKind | None, rule: Rule, destination: str) -> str:
    """What would have to change for a held tag to be copied.

    Args:
        kind: of what kind the hold is; None where that is not known.
        rule: the rule that would copy it.
        destination: where the tag is held.
    """
    name, source = rule.name, rule.source
    remedies = {
        HoldKind.ARCHIVED: f"restore the image at {source}, which has archived it",
        HoldKind.IMMUTABLE: f"let the tag be moved at {destination}, or delete it there, or give it another name with rename",
        HoldKind.PLATFORMS: f"push an image with these platforms to {source}, or change platforms or missing_platform of rule {name}",
        HoldKind.REFERRERS: f"add what is required to the image at {source}, or change require in referrers of rule {name}",
        HoldKind.FILTERED: f"change the filter or require in referrers of rule {name}",
        HoldKind.SIGNATURES: f"sign the image as trust of rule {name} demands",
    }
    unknown = "the reason has to end; see the step"
    return unknown if kind is None else remedies.get(kind, unknown)


def hold_kind(text: str) -> HoldKind | None:
    """The kind that the state remembers; None for one that this version does not know."""
    try:
        return HoldKind(text)
    except ValueError:
        return None
