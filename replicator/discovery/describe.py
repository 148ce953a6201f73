"""One image, described: platforms, layers, config, and what refers to it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from replicator.errors import Corrupt, NotFound, SiteError, Unsupported
from replicator.model.companion import LEGACY_SUFFIXES, fallback_tag
from replicator.model.decoding import JSON_ERRORS
from replicator.model.descriptor import Descriptor, Platform
from replicator.model.digest import Digest, algorithm, digest_of
from replicator.model.manifest import Kind, Manifest, annotations_of
from replicator.ports import Repository

MAX_CONFIG_BYTES: Final = 8 * 1024 * 1024
READS_AT_ONCE: Final = 16


class _RunConfig(msgspec.Struct):
    """The part of an image config that a container is started with. OCI image-spec, config.md."""

    env: list[str] | None = msgspec.field(default=None, name="Env")
    entrypoint: list[str] | None = msgspec.field(default=None, name="Entrypoint")
    cmd: list[str] | None = msgspec.field(default=None, name="Cmd")
    user: str | None = msgspec.field(default=None, name="User")
    working_dir: str | None = msgspec.field(default=None, name="WorkingDir")
    labels: dict[str, str] | None = msgspec.field(default=None, name="Labels")
    exposed_ports: dict[str, object] | None = msgspec.field(default=None, name="ExposedPorts")


class _Config(msgspec.Struct):
    created: str | None = None
    author: str | None = None
    architecture: str = ""
    os: str = ""
    variant: str | None = None
    config: _RunConfig | None = None


@dataclass(frozen=True, slots=True)
class Variant:
    """One image of an index, or the one there is. `problem` says why it could not be read.

    `is_absent`: the site does not have it, as in a sparse index.
    """

    digest: Digest
    platform: Platform | None
    layers: tuple[Descriptor, ...] = ()
    created: str | None = None
    run: _RunConfig | None = None
    problem: str | None = None
    is_absent: bool = False


@dataclass(frozen=True, slots=True)
class Referrer:
    """Something that refers to the image. `tag` is the tag that it was found under, None for the referrers API."""

    digest: Digest
    kind: str
    tag: str | None = None


@dataclass(frozen=True, slots=True)
class Description:
    """An image. `layers` maps each layer's digest to the platforms that have it."""

    site: str
    repository: str
    reference: str
    root: Manifest
    variants: tuple[Variant, ...]
    referrers: tuple[Referrer, ...]
    problems: tuple[str, ...] = ()

    @property
    def annotations(self) -> Mapping[str, str]:
        """The root manifest's own annotations."""
        return annotations_of(self.root) or {}

    @property
    def layers(self) -> Mapping[Digest, tuple[Descriptor, tuple[Digest, ...]]]:
        """Each layer once, with the images that have it."""
        found: dict[Digest, tuple[Descriptor, tuple[Digest, ...]]] = {}
        for variant in self.variants:
            for layer in variant.layers:
                users = found.get(layer.digest, (layer, ()))[1]
                found[layer.digest] = (layer, (*users, variant.digest))
        return found

    @property
    def size(self) -> int:
        """Bytes of all layers, each counted once."""
        return sum(layer.size or 0 for layer, _ in self.layers.values())


async def describe(repository: Repository, reference: str) -> Description:
    """Reads an image's manifests and configs, and asks what refers to it.

    Raises:
        SiteError: the image itself cannot be read. What cannot be read below it is a problem in the description, unless
            other children of the same index are there: then it is absent, as in a sparse index.
    """
    digest = (await repository.resolve(reference)).digest
    root = await repository.read_manifest(digest)
    problems: list[str] = []
    if root.kind is Kind.INDEX:
        variants = await _variants(repository, root.children)
    else:
        variants = (await _variant(repository, root, root.descriptor.platform),)
    referrers = await _referrers(repository, digest, problems)
    problems += [f"{variant.digest}: {variant.problem}" for variant in variants if variant.problem]
    return Description(
        repository.site, repository.name, reference, root, variants, tuple(referrers), tuple(problems)
    )


async def _variants(repository: Repository, children: Sequence[Descriptor]) -> tuple[Variant, ...]:
    slots = asyncio.Semaphore(READS_AT_ONCE)

    async def read(child: Descriptor) -> Variant:
        async with slots:
            try:
                manifest = await repository.read_manifest(child.digest)
            except NotFound as error:
                return Variant(child.digest, child.platform, problem=str(error), is_absent=True)
            except SiteError as error:
                return Variant(child.digest, child.platform, problem=str(error))
            return await _variant(repository, manifest, child.platform)

    async with asyncio.TaskGroup() as tasks:
        started = [tasks.create_task(read(child)) for child in children]
    variants = tuple(task.result() for task in started)
    if all(variant.is_absent for variant in variants):
        return variants
    return tuple(replace(variant, problem=None) if variant.is_absent else variant for variant in variants)


async def _variant(repository: Repository, manifest: Manifest, platform: Platform | None) -> Variant:
    config = manifest.config
    layers = tuple(blob for blob in manifest.blobs if config is None or blob.digest != config.digest)
    if manifest.kind is not Kind.IMAGE or config is None or (config.size or 0) > MAX_CONFIG_BYTES:
        return Variant(manifest.digest, platform, layers)
    try:
        read = msgspec.json.decode(await read_config(repository, config), type=_Config)
    except SiteError as error:
        return Variant(manifest.digest, platform, layers, problem=str(error))
    except JSON_ERRORS:
        return Variant(manifest.digest, platform, layers)  # an artifact's config may be anything
    own = Platform(read.architecture, read.os, read.variant) if read.os else None
    return Variant(manifest.digest, platform or own, layers, read.created, read.config)


async def read_config(repository: Repository, descriptor: Descriptor) -> bytes:
    """A small blob, verified. Raises SiteError."""
    body = bytearray()
    async with repository.blob(descriptor).open() as chunks:
        async for chunk in chunks:
            body += chunk
            if len(body) > MAX_CONFIG_BYTES:
                raise Corrupt(
                    repository.site,
                    "read config",
                    f"{descriptor.digest} is larger than {MAX_CONFIG_BYTES} bytes",
                    repository=repository.name,
                )
    if digest_of(bytes(body), algorithm(descriptor.digest)) != descriptor.digest:
        what = f"the content of {descriptor.digest} does not match its digest"
        raise Corrupt(repository.site, "read config", what, repository=repository.name)
    return bytes(body)


async def _referrers(repository: Repository, digest: Digest, problems: list[str]) -> list[Referrer]:
    """From the referrers API, else the fallback tag; and cosign's older tags."""
    found: list[Referrer] = []
    try:
        listed = await repository.referrers(digest)
    except (Unsupported, NotFound):
        listed = await _fallback(repository, digest, problems)
    except SiteError as error:
        problems.append(str(error))
        listed = ()
    found += [Referrer(each.digest, each.artifact_type or each.media_type) for each in listed]
    for suffix in LEGACY_SUFFIXES:
        tag = fallback_tag(digest) + suffix
        try:
            found.append(Referrer((await repository.resolve(tag)).digest, f"cosign {suffix}", tag))
        except NotFound:
            continue
        except SiteError as error:
            problems.append(str(error))
    return found


async def _fallback(repository: Repository, digest: Digest, problems: list[str]) -> Sequence[Descriptor]:
    """What the fallback tag lists; nothing if it does not exist."""
    try:
        return (await repository.read_manifest(fallback_tag(digest))).children
    except NotFound:
        return ()
    except SiteError as error:
        problems.append(str(error))
        return ()
