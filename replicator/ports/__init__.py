"""What the engine knows of the world: sites, repositories, blobs, state, time.

Adapters implement these. Outside an adapter nobody sees aiohttp, botocore, SQLAlchemy or OSError: whatever
goes wrong is a `SiteError` (or `StateError`) that names site, repository and operation. Every method may be
cancelled at any await and then leaves nothing visible and nothing held.
"""

from __future__ import annotations

from replicator.ports.clock import Clock
from replicator.ports.objects import ObjectInfo, ObjectPage, ObjectStore, ObjectUpload, OpenedFile, OpensFiles
from replicator.ports.repository import (
    BlobOutcome,
    BlobSource,
    ComparesTags,
    CopiesFromSibling,
    Listed,
    ListsDigests,
    ListsReferrers,
    RefusesManifests,
    RefusesTags,
    Repository,
    TriesManifests,
    VerifiesItself,
)
from replicator.ports.search import ImageSeen
from replicator.ports.site import (
    Capabilities,
    ExpectsContent,
    LimitsBytes,
    ListsBlobs,
    RefusesNames,
    Site,
    SiteCheck,
)
from replicator.ports.state import (
    AcceptedEvent,
    BehindRepository,
    CatalogSeen,
    Created,
    Entry,
    GoneAtDestination,
    Missing,
    Noted,
    Pending,
    Placed,
    Placement,
    RunRow,
    Seen,
    Standing,
    State,
    TagBelief,
    Unit,
    UnitSeen,
    Unlisted,
    Unpending,
)

__all__ = [
    "AcceptedEvent",
    "BehindRepository",
    "BlobOutcome",
    "BlobSource",
    "Capabilities",
    "CatalogSeen",
    "Clock",
    "ComparesTags",
    "CopiesFromSibling",
    "Created",
    "Entry",
    "ExpectsContent",
    "GoneAtDestination",
    "ImageSeen",
    "LimitsBytes",
    "Listed",
    "ListsBlobs",
    "ListsDigests",
    "ListsReferrers",
    "Missing",
    "Noted",
    "ObjectInfo",
    "ObjectPage",
    "ObjectStore",
    "ObjectUpload",
    "OpenedFile",
    "OpensFiles",
    "Pending",
    "Placed",
    "Placement",
    "RefusesManifests",
    "RefusesNames",
    "RefusesTags",
    "Repository",
    "RunRow",
    "Seen",
    "Site",
    "SiteCheck",
    "Standing",
    "State",
    "TagBelief",
    "TriesManifests",
    "Unit",
    "UnitSeen",
    "Unlisted",
    "Unpending",
    "VerifiesItself",
]
