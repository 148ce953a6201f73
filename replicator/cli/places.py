"""Sites on the command line: by their name in the config, by URL, or by the host of a registry."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Iterable, Mapping

from replicator.cli.images import ONE, ImageName, absolute, is_place, parse_store
from replicator.cli.options import Invocation
from replicator.cli.watch import Watch
from replicator.errors import ConfigError, NotFound
from replicator.model.names import parse_host
from replicator.ports import ObjectStore, Site
from replicator.sites.layouts.detect import detect
from replicator.sites.layouts.oci.paths import MARKER
from replicator.sites.layouts.settings import Layout, LayoutSettings
from replicator.sites.objects.settings import LocalSettings, S3Settings
from replicator.sites.open import SiteSettings, open_site, open_store
from replicator.sites.registry.probe import registry_url
from replicator.sites.registry.settings import TLS, RegistrySettings


async def registry_at(host: str, *, insecure: bool) -> RegistrySettings:
    """The settings of the registry at a host (`HOST[:PORT]`), which is also the name of the site.

    As in docker, loopback may use plain HTTP. With `insecure` any host may, and certificates are not verified.
    """
    return RegistrySettings(host, await registry_url(host, insecure=insecure), tls=TLS(verify=not insecure))


@contextlib.asynccontextmanager
async def open_sites(settings: Iterable[SiteSettings], watch: Watch) -> AsyncIterator[Mapping[str, Site]]:
    """The sites by name, closed with the context; each is closed even if closing another one fails."""
    async with contextlib.AsyncExitStack() as stack:
        sites: dict[str, Site] = {}
        for each in settings:
            site = sites[each.name] = open_site(each, events=watch.events, clock=watch.clock)
            stack.push_async_callback(site.aclose)
        yield sites


def looks_like_host(text: str) -> bool:
    """Whether the text is the host of a registry rather than a name in the config, by docker's rule."""
    return "." in text or ":" in text or text == "localhost"


async def layout_of(
    store: LocalSettings | S3Settings, repository: str | None, layout: Layout | None, watch: Watch
) -> LayoutSettings:
    """The store with its layout: the one given, else the one detected, else the default of its kind.

    Raises:
        SiteError: the store cannot be reached.
    """
    if layout is None:
        opened = open_store(store, events=watch.events, clock=watch.clock)
        try:
            layout = await _found(opened, repository)
        except NotFound:
            if isinstance(store, S3Settings):
                raise  # buckets are never created; directories are created on the first write
        finally:
            await opened.aclose()
    return LayoutSettings(store, layout or ("distribution" if isinstance(store, S3Settings) else "oci"))


async def _found(store: ObjectStore, repository: str | None) -> Layout | None:
    """The layout found in a store; None if it cannot be determined."""
    layout = (await detect(store)).layout
    if layout == "oci" and repository is not None and not await store.stat(f"{repository}/{MARKER}"):
        return None
    return layout


async def site_settings(invocation: Invocation, name: str, watch: Watch, *, insecure: bool) -> SiteSettings:
    """A site named on the command line: in the config, or as `s3://`, `file://`, `oci:DIR` or a registry's host.

    Only a name requires a config.

    Raises:
        ConfigError: the site does not exist.
    """
    if is_place(name):
        return await _settings_at(name, watch)
    from replicator.config.load import load  # noqa: PLC0415 - pydantic takes its time, and `copy` needs no config

    try:
        sites = load(invocation.config, os.environ).sites
    except ConfigError:
        if invocation.config is not None or not looks_like_host(name):
            raise
        sites = {}
    if name in sites:
        return sites[name]
    hint = "; write a directory as file:///PATH" if "/" in name else ""
    if looks_like_host(name):
        try:
            host = parse_host(name)
        except ValueError as error:
            raise ConfigError([f"{name}: {error}{hint}"]) from None
        return await registry_at(host, insecure=insecure)
    raise ConfigError([f"{name}: unknown site; the config has {', '.join(sorted(sites)) or 'none'}{hint}"])


async def _settings_at(name: str, watch: Watch) -> SiteSettings:
    if name.startswith("oci-archive:"):
        raise ConfigError([f"{name}: archives are not sites; use `import` or `copy` to read one"])
    if name.startswith("oci:"):
        return LayoutSettings(LocalSettings(name, absolute(name.removeprefix("oci:"))), "oci", ONE)
    try:
        store = parse_store(name)
    except ValueError as error:
        raise ConfigError([f"{name}: {error}"]) from None
    return await layout_of(store, None, None, watch)


async def image_settings(
    image: ImageName, layout: Layout | None, watch: Watch, *, insecure: bool
) -> SiteSettings:
    """The settings of the site of an image that is not in an archive."""
    if image.store is None:
        return await registry_at(image.site, insecure=insecure)
    if image.kind == "layout":
        return LayoutSettings(image.store, "oci", image.repository)
    return await layout_of(image.store, image.repository, layout, watch)
