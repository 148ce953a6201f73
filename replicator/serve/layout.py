"""From a store to a site that can be served: which layout lies there."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from replicator.errors import ReplicatorError
from replicator.events import Events
from replicator.model.names import is_repository
from replicator.ports import ObjectStore
from replicator.serve.content import LayoutSite
from replicator.sites.layouts.distribution.site import DistributionSite
from replicator.sites.layouts.oci.paths import INDEX, MARKER
from replicator.sites.layouts.oci.site import OciSite
from replicator.sites.layouts.settings import Layout
from replicator.sites.layouts.walk import look_into

_NAMELESS: Final = "image"


async def recognise(
    store: ObjectStore, layout: Layout | None, *, folder: str, events: Events
) -> tuple[LayoutSite, str]:
    """The site over a store, and what was found there in a few words. The caller closes the site.

    Args:
        store: what is served.
        layout: what lies there; None finds out.
        folder: what the place is called. It names the one repository where the place is itself one OCI layout.
        events: gets `Warned`.

    Raises:
        SiteError: the store cannot be reached.
        ReplicatorError: something else lies there.
    """
    root = await look_into(store, "")
    if layout is None:
        layout = "distribution" if await _is_registry(store, root.folders) else "oci"
    site: LayoutSite
    if layout == "distribution":
        site = DistributionSite(store, events=events)
    else:
        is_layout = {MARKER, INDEX} <= set(root.objects)
        site = OciSite(store, events=events, only=_repository(folder) if is_layout else None)
    check = await site.check()
    if check.problems:
        raise ReplicatorError("\n".join(check.problems))
    return site, dict(check.findings)["layout"]


async def _is_registry(store: ObjectStore, folders: Collection[str]) -> bool:
    return "docker" in folders and "v2" in (await look_into(store, "docker/registry/")).folders


def _repository(folder: str) -> str:
    name = folder.lower()
    return name if is_repository(name) else _NAMELESS
