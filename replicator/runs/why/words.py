"""How an explanation words filters, times and what ends a hold. Pure."""

from __future__ import annotations

import datetime as dt

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


def end_of_hold(reason: str, rule: Rule, destination: str) -> str:
    """What would have to change for a held tag to be copied, by the reason of the hold.

    Args:
        reason: as decisions and errors give it.
        rule: the rule that would copy it.
        destination: where the tag is held.
    """
    name, source = rule.name, rule.source
    untrusted = reason.removeprefix("not trusted: ")
    remedy = "the reason has to end; see the step"
    if untrusted.startswith("required, but the source has none"):
        remedy = (
            f"add what is required to the image at {source}, or change require in referrers of rule {name}"
        )
    elif untrusted.startswith("required, but "):
        remedy = f"change the filter or require in referrers of rule {name}"
    elif untrusted != reason:
        remedy = f"sign the image as trust of rule {name} demands"
    elif reason == "archived":
        remedy = f"restore the image at {source}, which has archived it"
    elif reason.startswith("the image has no "):
        remedy = f"push an image with these platforms to {source}, or change platforms or missing_platform of rule {name}"
    elif " is immutable there" in reason or reason.endswith(" at the destination, with another digest"):
        remedy = (
            f"let the tag be moved at {destination}, or delete it there, or give it another name with rename"
        )
    return remedy
