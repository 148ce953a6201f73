"""From settings to a site, whatever kind it is of. Only what that kind needs is imported, and only then."""

from __future__ import annotations

from replicator.events import Events
from replicator.ports import Clock, ObjectStore, Site
from replicator.sites.authorities import import_aiohttp
from replicator.sites.layouts.settings import LayoutSettings
from replicator.sites.objects.settings import LocalSettings, S3Settings
from replicator.sites.registry.settings import RegistrySettings

SiteSettings = RegistrySettings | LayoutSettings


def open_site(settings: SiteSettings, *, events: Events, clock: Clock) -> Site:
    """The site; nothing is asked of it yet. The caller closes it."""
    if isinstance(settings, RegistrySettings):
        import_aiohttp()
        from replicator.sites.registry.site import RegistrySite  # noqa: PLC0415 - aiohttp takes 0.1 s

        return RegistrySite(settings, events=events, clock=clock)
    store = open_store(settings.store, events=events, clock=clock)
    if settings.layout == "distribution":
        from replicator.sites.layouts.distribution.site import DistributionSite  # noqa: PLC0415 - see the module

        return DistributionSite(store, events=events)
    from replicator.sites.layouts.oci.site import OciSite  # noqa: PLC0415 - see the module

    return OciSite(store, events=events, only=settings.only)


def open_store(settings: LocalSettings | S3Settings, *, events: Events, clock: Clock) -> ObjectStore:
    """The store alone; nothing is asked of it yet. The caller closes it."""
    if isinstance(settings, S3Settings):
        from replicator.sites.objects.s3.store import S3Store  # noqa: PLC0415 - aiobotocore takes 0.5 s

        return S3Store(settings, events=events, clock=clock)
    from replicator.sites.objects.local.store import LocalStore  # noqa: PLC0415 - see the module

    return LocalStore(settings, events=events, clock=clock)
