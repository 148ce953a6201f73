"""References to images at sites: of the config by the site's name, else as `copy` names images."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass

from replicator.cli.archives import open_archive
from replicator.cli.images import ONE, ImageName, parse_image
from replicator.cli.options import Invocation
from replicator.cli.places import image_settings, open_sites
from replicator.cli.watch import Watch
from replicator.config.load import load
from replicator.errors import ConfigError, NotFound
from replicator.model.digest import Digest, parse_digest
from replicator.model.names import parse_repository, parse_tag
from replicator.ports import Repository, Site
from replicator.sites.archive.names import called
from replicator.sites.layouts.oci.entries import digest_in
from replicator.sites.layouts.oci.repository import OciRepository
from replicator.sites.open import SiteSettings


@dataclass(frozen=True, slots=True)
class SiteImage:
    """An image at a site of the config: `SITE/REPOSITORY[:TAG][@DIGEST]`."""

    site: SiteSettings
    repository: str
    tag: str | None
    digest: Digest | None

    @property
    def reference(self) -> str:
        """What the site is asked for; a digest wins, no tag is `latest`."""
        return self.digest or self.tag or "latest"


def parse_site_image(invocation: Invocation, text: str) -> SiteImage | None:
    """The image of a site of the config; None where the text does not begin with the name of one.

    Raises:
        ConfigError: the config named with `-c` cannot be used, or what follows the site's name is malformed.
    """
    name, slash, rest = text.partition("/")
    if not slash or ":" in name:
        return None
    try:
        sites = load(invocation.config, os.environ).sites
    except ConfigError:
        if invocation.config is not None:
            raise
        return None
    if name not in sites:
        return None
    path, at, digest = rest.partition("@")
    repository, colon, tag = path.partition(":")
    try:
        return SiteImage(
            sites[name],
            parse_repository(repository),
            parse_tag(tag) if colon else None,
            parse_digest(digest) if at else None,
        )
    except ValueError as error:
        raise ConfigError([f"{text}: {error}; expected {name}/REPOSITORY[:TAG][@DIGEST]"]) from None


@contextlib.asynccontextmanager
async def opened_image(
    invocation: Invocation, text: str, watch: Watch, *, insecure: bool
) -> AsyncIterator[tuple[Repository, str]]:
    """The repository that an image is in, open while the context lasts, and its tag or digest there.

    Raises:
        ConfigError: the text names no image, or an archive that cannot be opened.
        SiteError: the image is not found in the layout or archive, or there are several and none is named.
    """
    async with opened_site(invocation, text, watch, insecure=insecure) as (_, repository, reference):
        yield repository, reference


@contextlib.asynccontextmanager
async def opened_site(
    invocation: Invocation, text: str, watch: Watch, *, insecure: bool
) -> AsyncIterator[tuple[Site, Repository, str]]:
    """As `opened_image`, with the repository's site."""
    async with contextlib.AsyncExitStack() as stack:
        known = parse_site_image(invocation, text)
        site: Site
        repository: Repository
        if known is not None:
            sites = await stack.enter_async_context(open_sites([known.site], watch))
            site = sites[known.site.name]
            yield site, site.repository(known.repository), known.reference
            return
        try:
            image = parse_image(text)
        except ValueError as error:
            raise ConfigError([str(error)]) from None
        if image.kind == "archive":
            opened = await stack.enter_async_context(open_archive(image.path, image.site, watch, only=ONE))
            site = opened[1]
            repository = site.repository(ONE)
        else:
            settings = await image_settings(image, None, watch, insecure=insecure)
            site = (await stack.enter_async_context(open_sites([settings], watch)))[settings.name]
            repository = site.repository(image.repository)
        yield site, repository, await _reference(image, repository)


async def _reference(image: ImageName, repository: Repository) -> str:
    """The tag or digest; in a layout or archive without either, that of the only image."""
    if image.digest or not isinstance(repository, OciRepository) or image.kind not in {"layout", "archive"}:
        return image.digest or image.tag or "latest"
    entries = [each for each in await repository.entries() if not image.tag or called(each, image.tag)]
    digests = {digest for each in entries if (digest := digest_in(each)) is not None}
    if len(digests) != 1:
        what = "not found" if not digests else f"one of {len(digests)} images must be named"
        raise NotFound(image.site, "find image", f"{image.tag or 'image'}: {what}")
    return digests.pop()
