"""AWS ECR, private registries.

https://docs.aws.amazon.com/AmazonECR/latest/userguide/service-quotas.html
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

from msgspec.structs import replace

from replicator.errors import AuthFailed
from replicator.notifications import ecr
from replicator.notifications.format import same_host
from replicator.ports import Listed
from replicator.sites.bounds import MAX_PAGES
from replicator.sites.registry.identity.settings import EcrIdentity
from replicator.sites.registry.record import CapabilityRecord
from replicator.sites.registry.vendors.creating.ecr import EcrRepositories, access_of
from replicator.sites.registry.vendors.listing import Page, Refers, VendorAPI, listed
from replicator.sites.registry.vendors.vendor import NameRules, Refusal, Vendor

HOST: Final = re.compile(
    r"(?P<account>\d{12})\.dkr[.-]ecr(?P<fips>-fips)?\.(?P<region>[a-z0-9][a-z0-9-]{0,62})"
    r"\.(?:amazonaws\.com(?:\.cn)?|amazonaws\.eu|on\.aws|on\.amazonwebservices\.com\.cn|[a-z0-9.-]{1,60}\.gov)"
)
"""As in amazon-ecr-credential-helper."""


class EcrImages:
    """`DescribeImages`, which tells of archived images too; `ListImages` where the policy allows only that.

    Wants `ecr:DescribeImages` (or `ecr:ListImages`) and credentials of AWS. Listings lag behind deletions.

    Referrers are images without a tag. They are listed with the others where one answer has all images of a repository, so
    that they cost nothing.
    """

    how: ClassVar[str] = "ECR's API"
    page_tags: ClassVar[int] = 1000
    is_hint: ClassVar[bool] = True

    async def pages(self, api: VendorAPI, repository: str) -> AsyncGenerator[Page, None]:
        """See `BulkListing`."""
        from replicator.sites.registry.identity.source import NoIdentity  # noqa: PLC0415 - botocore takes 0.1 s

        access = access_of(api)
        account = {"registryId": access.registry_id} if access.registry_id.isdigit() else {}
        tagged = {"repositoryName": repository, "maxResults": self.page_tags, **account}
        try:
            client = await access.kept_client("ecr")
        except NoIdentity:
            return  # docker's credentials serve the registry alone

        async def ask(operation: str, **more: object) -> dict[str, Any]:
            async with api.turn("list digests", repository):
                with access.mapped("ecr"):
                    found: dict[str, Any] = await getattr(client, operation)(**tagged, **more)
                    return found

        async for page in _pages(ask, repository, access.large):
            yield page


Ask = Callable[..., Awaitable[dict[str, Any]]]


async def _pages(ask: Ask, repository: str, large: set[str]) -> AsyncGenerator[Page, None]:
    operation, more = (
        "describe_images",
        _filter("TAGGED" if repository in large else "ANY", imageStatus="ANY"),
    )
    asked: set[str] = set()
    while True:
        try:
            answer = await ask(operation, **more)
        except AuthFailed:
            if operation == "list_images" or asked:
                raise
            operation, more = "list_images", _filter("TAGGED")
            continue
        token = answer.get("nextToken")
        if operation == "list_images":
            yield Page(
                _listed((entry.get("imageTag"), entry.get("imageDigest"), "") for entry in answer["imageIds"])
            )
        else:
            images = answer["imageDetails"]
            if token:
                large.add(repository)
            # Of a large repository the next listing tells no referrers, which would look like a change.
            yield Page(_tags(images), refers=() if repository in large else _refers(images))
        if not token:
            return
        if token in asked or len(asked) > MAX_PAGES:
            raise ValueError("its pages do not end")
        asked.add(token)
        more["nextToken"] = token


def _filter(tags: str, **more: str) -> dict[str, Any]:
    return {"filter": {"tagStatus": tags, **more}}


def _tags(images: Iterable[dict[str, Any]]) -> list[Listed]:
    return _listed(
        (tag, image.get("imageDigest"), image.get("imageStatus", ""))
        for image in images
        for tag in image.get("imageTags", ())
    )


def _refers(images: Iterable[dict[str, Any]]) -> list[Refers]:
    return [
        Refers(image["subjectManifestDigest"], image["imageDigest"])
        for image in images
        if image.get("subjectManifestDigest") and image.get("imageDigest")
    ]


def _listed(images: Iterable[tuple[Any, Any, str]]) -> list[Listed]:
    return [
        one
        for tag, digest, status in images
        if isinstance(tag, str)
        and (one := listed(tag, digest, archived=status in {"ARCHIVED", "ACTIVATING"}))
    ]


def is_same_registry(named: str, url: str) -> bool:
    """Whether the registry of a notification is the site's: a registry has several hosts, all with its account and region."""
    theirs, ours = HOST.fullmatch(named), HOST.fullmatch(urlsplit(url).hostname or "")
    if theirs is None or ours is None:
        return same_host(named, url)
    return theirs.group("account", "region") == ours.group("account", "region")


ECR: Final = Vendor(
    kind="ecr",
    title="AWS ECR",
    host_pattern=HOST,
    record=CapabilityRecord(chunk_bytes=0, resume=False, mount=False),
    names=NameRules(max_length=256),
    tag_deletion="vendor",
    digest_deletion="refused in an index",
    immutable=(Refusal(frozenset({400}), code="TAG_INVALID", text="already exists"),),
    identity=EcrIdentity(),
    is_public=False,
    read_right="ecr:BatchGetImage, ecr:GetDownloadUrlForLayer, ecr:BatchCheckLayerAvailability and ecr:ListImages",
    write_right="ecr:InitiateLayerUpload, ecr:UploadLayerPart, ecr:CompleteLayerUpload and ecr:PutImage",
    listing=EcrImages(),
    creation=EcrRepositories(),
    notifications=replace(ecr.FORMAT, is_same=is_same_registry),
    limits=(
        "Repositories are not created by a push, unless a creation template covers their prefix.",
        "At most 10 manifests per second are accepted from one account in one region.",
    ),
)
