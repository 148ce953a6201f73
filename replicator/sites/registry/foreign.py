"""Non-distributable layers: read from a URL that a manifest names, where no registry has them.

Whoever can push an image writes such URLs. They are treated as redirects of the registry are (`origin.refusal`,
`addresses.AddressGuard`), and never with credentials: CVE-2020-15157 is about containerd, which sent the registry's.
OCI image-spec, descriptor.md ("urls") and layer.md ("Non-Distributable Layers").
"""

from __future__ import annotations

from msgspec.structs import replace
from yarl import URL

from replicator.model.descriptor import Descriptor
from replicator.sites.registry.blobs import RegistryBlob
from replicator.sites.registry.call import Call
from replicator.sites.registry.context import Registry
from replicator.sites.registry.origin import origin_of


class ForeignBlob(RegistryBlob):
    """A layer at a URL; read, bounded and resumed as a registry's own."""

    def __init__(self, registry: Registry, repository: str, descriptor: Descriptor, url: str) -> None:
        super().__init__(registry, repository, descriptor)
        self._url = url

    def call(self, offset: int, stop: int | None) -> Call:
        """The request for the bytes from `offset` on, without credentials."""
        return replace(super().call(offset, stop), url=self._url, own_login=True)


def open_foreign(registry: Registry, repository: str, descriptor: Descriptor, url: str) -> ForeignBlob | None:
    """The layer at that URL; None for what is not an http(s) URL, or is one of the registry itself.

    The registry was asked for the layer already. Its certificate and TLS client certificate are of no use to whoever
    wrote the URL.
    """
    try:
        parsed = URL(url, encoded=True)
        is_usable = parsed.scheme in {"http", "https"} and bool(parsed.raw_host)
    except ValueError:
        return None
    if not is_usable or not url.isascii() or not url.isprintable() or " " in url:
        return None
    if origin_of(parsed) == origin_of(registry.url):
        return None
    return ForeignBlob(registry, repository, descriptor, url)
