"""Registries filled and looked over as the program's tests need it; the looking has nothing of our own client."""

from __future__ import annotations

import hashlib
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from replicator.demo.images import BuiltImage
from replicator.events import Events
from replicator.flow.clock import SystemClock
from replicator.model.mediatypes import MANIFEST_ACCEPT
from replicator.sites.registry.settings import RegistrySettings
from replicator.sites.registry.site import RegistrySite
from tests.fakes.layouts import put_image

Images = Mapping[tuple[str, str], BuiltImage]
"""By repository and tag."""

_PATIENCE_SECONDS: Final = 30


async def fill(settings: RegistrySettings, images: Images) -> None:
    """Puts the images there."""
    site = RegistrySite(settings, events=Events(), clock=SystemClock())
    try:
        for (name, tag), built in images.items():
            await put_image(site.repository(name), built, tag)
    finally:
        await site.aclose()


def expected(images: Images) -> dict[tuple[str, str], str]:
    """What a registry that has these images is found to have."""
    return {where: built.digest for where, built in images.items()}


def walk(
    url: str, is_half_made: Callable[[str, str], bool] = lambda _, __: False
) -> dict[tuple[str, str], str]:
    """The digest of each tag of an open registry, every one followed to the last byte of its last blob.

    `is_half_made` is asked of a repository's tag that is listed and leads nowhere; such a one may be left out.

    Raises AssertionError for a tag that is not whole.
    """
    walker = _Walker(url)
    return {
        (name, tag): walker.whole(name, tag)
        for name, tag in walker.tags()
        if walker.leads_somewhere(name, tag) or not is_half_made(name, tag)
    }


@dataclass(frozen=True)
class _Walker:
    url: str

    def tags(self) -> Iterator[tuple[str, str]]:
        """All there are; docker-registry keeps a repository of which it has but blobs in its catalog."""
        for name in json.loads(self._get("_catalog?n=1000"))["repositories"]:
            listed = self._get(f"{name}/tags/list", missing=b"{}")
            for tag in json.loads(listed).get("tags") or []:
                yield name, tag

    def leads_somewhere(self, name: str, tag: str) -> bool:
        """Whether there is a manifest."""
        return bool(self._get(f"{name}/manifests/{tag}", missing=b""))

    def whole(self, name: str, reference: str) -> str:
        """The digest of a manifest whose content is all there."""
        body = self._get(f"{name}/manifests/{reference}")
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        assert reference == digest or not reference.startswith("sha256:")
        manifest: dict[str, Any] = json.loads(body)
        for child in manifest.get("manifests", []):
            assert self.whole(name, child["digest"]) == child["digest"]
        for blob in [manifest["config"], *manifest["layers"]] if "layers" in manifest else []:
            data = self._get(f"{name}/blobs/{blob['digest']}")
            assert f"sha256:{hashlib.sha256(data).hexdigest()}" == blob["digest"]
        return digest

    def _get(self, path: str, *, missing: bytes | None = None) -> bytes:
        request = urllib.request.Request(  # noqa: S310 - the URL is the test's own registry's
            f"{self.url}/v2/{path}", headers={"Accept": MANIFEST_ACCEPT}
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=_PATIENCE_SECONDS) as answer:
                body: bytes = answer.read()
                return body
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 404 and missing is not None:
                return missing
            raise AssertionError(f"{path}: {error.code}") from error
