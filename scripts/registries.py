"""Prints docs/registries/README.md, the overview of the vendors in replicator/sites/registry/vendors.

python -m scripts.registries > docs/registries/README.md
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from replicator.sites.registry.vendors.known import VENDORS
from replicator.sites.registry.vendors.vendor import DigestDeletion, TagDeletion, Vendor

PAGES: Final = Path(__file__).parent.parent / "docs" / "registries"

_HEAD: Final = """\
# Registries

What replicator knows about the registries of each vendor. A registry is recognized by its host name or by its answers. If
neither is enough, as with Harbor on a host of your own, set the site's `kind`. `replicator check` shows what was recognized, and
why. A registry that is not recognized is used according to the OCI standard, and replicator learns from its answers.

If a registry lists tags with their digests, a run with nothing to do costs one request for each page instead of one for each
tag ("each tag is asked for" on the vendors' pages). If such a listing is refused, each tag is requested instead, and the
listing is not tried again for a day: for one repository (401, 403, 404), or for all of them (after three refusals in a row, and
on 429 and others). The report and `check` show this.

replicator deletes nothing; the last two columns are for your own cleaning up.

This page is generated: `python -m scripts.registries > docs/registries/README.md`.

"""

_TAG: Final[dict[TagDeletion, str]] = {
    "registry": "yes",
    "vendor": "by the vendor's API",
    "whole version": "only with all tags of its digest",
    "not possible": "no",
}
_DIGEST: Final[dict[DigestDeletion, str]] = {
    "takes tags": "takes its tags along",
    "refused while tagged": "refused while it has tags",
    "refused in an index": "takes its tags along; refused if an index has it",
    "not possible": "no",
}
_HEADERS: Final = {"WWW-Authenticate": "its challenge", "Location": "its upload URLs"}


def overview() -> str:
    """The text of docs/registries/README.md."""
    lines = [
        "| registry | `kind` | recognized by | tags listed with digests | blob uploads | repository names | replicator creates | webhooks | delete one tag | delete a digest |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(_row(vendor) for vendor in VENDORS),
    ]
    limits = [f"## {vendor.title}\n\n{_limits(vendor)}" for vendor in VENDORS if vendor.limits]
    return _HEAD + "\n".join(lines) + "\n\n" + "\n".join(limits)


def _row(vendor: Vendor) -> str:
    page = f"{vendor.kind}.md"
    title = f"[{vendor.title}]({page})" if (PAGES / page).exists() else vendor.title
    cells = (
        title,
        f"`{vendor.kind}`",
        _signs(vendor),
        f"{vendor.listing.how}, {vendor.listing.page_tags:,} per request" if vendor.listing else "no",
        {"put": "one PUT", "patch": "one PATCH", "chunks": "chunks"}[vendor.record.upload],
        vendor.names.shape or "any",
        _creation(vendor),
        _notifications(vendor),
        _TAG[vendor.tag_deletion],
        _DIGEST[vendor.digest_deletion],
    )
    return f"| {' | '.join(cells)} |"


def _creation(vendor: Vendor) -> str:
    way = vendor.creation
    if way is None:
        return "no"
    keys = ", ".join(f"`create.{key}`" for key in sorted(way.required))
    return f"the {way.what}, with {keys}" if keys else f"the {way.what}"


def _notifications(vendor: Vendor) -> str:
    sender = vendor.notifications
    if sender is None:
        return "no"
    if sender.signature is not None:
        return f"signed (`{sender.signature.header}`)"
    return f"with `{sender.secret_header}`" if sender.secret_header else "yes"


def _signs(vendor: Vendor) -> str:
    hosts = [f"`{host}`" for host in vendor.hosts]
    if vendor.host_pattern is not None:
        hosts.append("its host names")
    headers = dict.fromkeys(_HEADERS.get(sign.header) or f"header `{sign.header}`" for sign in vendor.signs)
    return ", ".join([*hosts, *headers]) or "`kind` only"


def _limits(vendor: Vendor) -> str:
    return "".join(f"- {limit}\n" for limit in vendor.limits)


if __name__ == "__main__":
    sys.stdout.write(overview())
