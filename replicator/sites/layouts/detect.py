"""Which layout a bucket or directory has: the only place that tells them apart."""

from __future__ import annotations

from dataclasses import dataclass

from replicator.ports import ObjectStore
from replicator.sites.layouts.distribution.paths import ROOT
from replicator.sites.layouts.oci.paths import INDEX, MARKER
from replicator.sites.layouts.settings import Layout
from replicator.sites.layouts.walk import look_into


@dataclass(frozen=True, slots=True)
class Contents:
    """What the top of a store tells.

    Attributes:
        is_empty: nothing at all.
        has_registry: a registry's storage (`docker/registry/v2` with folders in it).
        is_layout: the store is itself an OCI image layout (`oci-layout` and `index.json`).
        is_part_of_layout: it has one of these two files, but not the other.
        has_folders: it has folders, which may be OCI image layouts.
    """

    is_empty: bool
    has_registry: bool
    is_layout: bool
    is_part_of_layout: bool
    has_folders: bool

    @property
    def layout(self) -> Layout | None:
        """The layout that fits; None where neither does."""
        if self.has_registry:
            return "distribution"
        return "oci" if self.is_layout or self.has_folders else None


async def detect(store: ObjectStore) -> Contents:
    """Looks at the top of a store: one listing, and one more where there is a folder `docker`.

    Raises:
        SiteError: the store cannot be listed.
    """
    root = await look_into(store, "")
    marks = {MARKER, INDEX} & set(root.objects)
    has_registry = False
    if "docker" in root.folders:
        below = await look_into(store, f"{ROOT}/")
        # A repository may be called docker/registry/v2, in a bucket of OCI image layouts.
        has_registry = bool(below.folders) and INDEX not in below.objects
    return Contents(
        is_empty=not root.objects and not root.folders,
        has_registry=has_registry,
        is_layout=len(marks) == 2,
        is_part_of_layout=len(marks) == 1,
        has_folders=bool(root.folders),
    )
