"""From a store to a site that can be served, in whichever layout it has."""

from __future__ import annotations

from typing import Final

from replicator.errors import ReplicatorError
from replicator.events import Events
from replicator.model.names import is_repository
from replicator.ports import ObjectStore
from replicator.serve.content import LayoutSite
from replicator.sites.layouts.detect import detect
from replicator.sites.layouts.distribution.site import DistributionSite
from replicator.sites.layouts.oci.site import OciSite
from replicator.sites.layouts.settings import Layout

_NAMELESS: Final = "image"


async def site_of(
    store: ObjectStore, layout: Layout | None, *, folder: str, events: Events
) -> tuple[LayoutSite, str]:
    """The site over a store, and its layout in a few words. The caller closes the site.

    Args:
        store: what is served.
        layout: its layout; None detects it.
        folder: the name of the store's folder, which becomes the repository's where that is itself one OCI layout.
        events: gets `Warned`.

    Raises:
        SiteError: the store cannot be reached.
        ReplicatorError: the store has another layout.
    """
    contents = await detect(store)
    site: LayoutSite
    if (layout or contents.layout) == "distribution":
        site = DistributionSite(store, events=events)
    else:
        site = OciSite(store, events=events, only=_repository(folder) if contents.is_layout else None)
    check = await site.check()
    if check.problems:
        raise ReplicatorError("\n".join(check.problems))
    return site, dict(check.findings)["layout"]


def _repository(folder: str) -> str:
    name = folder.lower()
    return name if is_repository(name) else _NAMELESS
