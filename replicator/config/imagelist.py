"""Rules that take their images from lists: the lists read again for each scan, and one rule for each site they name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from msgspec.structs import replace

from replicator.lists.findings import Findings, Remark
from replicator.lists.reading import Reading
from replicator.lists.references import ListedImage, merge
from replicator.lists.sites import sites_by_host
from replicator.model.names import DOCKER_HUB
from replicator.policy.pattern import Glob
from replicator.policy.rule import ImageSet, Pin, RepositorySelection, Rule, TagSelection
from replicator.sites.open import SiteSettings
from replicator.sites.registry.settings import RegistrySettings

EVERYTHING = RepositorySelection((Glob.parse("**"),))
"""What a rule with a list selects by name: the list decides."""


@dataclass(frozen=True)
class ImageList:
    """The images of lists that are at one site; `policy.rule.ImageSource`.

    Args:
        files: names as `lists.read_files` takes them.
        reading: how they are read.
        host: the site's host, as references name it.
        hosts: the hosts of all sites; an image elsewhere is a problem.
        tells: whether this one tells the problems: of the rules that share lists, one does.
    """

    files: tuple[str, ...]
    reading: Reading
    host: str
    hosts: frozenset[str]
    tells: bool = True
    found: Findings | None = field(default=None, compare=False)
    """What the lists hold, where they were read already (stdin can be read once)."""

    def read(self) -> ImageSet:
        """Reads the lists. Blocks; raises nothing: what cannot be read is a problem of the set."""
        found = self.found or _read(self.files, self.reading)
        images, unread = merge(found)
        problems: list[Remark] = []
        if self.tells:
            problems = [*unread, *elsewhere(images, self.hosts)]
        mine = [image for image in images if image.reference.host == self.host]
        places = {
            (image.reference.repository, image.reference.tag): str(image.places[0])
            for image in mine
            if image.reference.tag is not None
        }
        return ImageSet(_by_repository(mine), tuple(map(str, problems)), places)


def elsewhere(images: Sequence[ListedImage], hosts: frozenset[str]) -> list[Remark]:
    """The images at hosts that no site has."""
    return [
        Remark(image.places[0], f"{image.reference}: no site has the host {image.reference.host}")
        for image in images
        if image.reference.host not in hosts
    ]


def _by_repository(images: Sequence[ListedImage]) -> dict[str, TagSelection]:
    """What is wanted of each repository: tags by name, and digests that are pinned."""
    tags: dict[str, list[str]] = {}
    pins: dict[str, list[Pin]] = {}
    for image in images:
        reference = image.reference
        if reference.digest is not None:
            pins.setdefault(reference.repository, []).append(Pin(reference.digest, reference.tag))
        elif reference.tag is not None:
            tags.setdefault(reference.repository, []).append(reference.tag)
    return {
        name: TagSelection.of(tags.get(name, ()), pins.get(name, ()))
        for name in dict.fromkeys((*tags, *pins))
    }


def hosts_of(sites: Mapping[str, SiteSettings]) -> dict[str, Sequence[str]]:
    """The names of the registry sites of each host."""
    urls = {name: site.url for name, site in sites.items() if isinstance(site, RegistrySettings)}
    found = sites_by_host(urls)
    for alias in ("registry-1.docker.io", "index.docker.io"):
        if alias in found:
            found.setdefault(DOCKER_HUB, found.pop(alias))
    return found


def listed_rules(
    rule: Rule, files: Sequence[str], reading: Reading, sites: Mapping[str, SiteSettings]
) -> Iterator[Rule]:
    """The rule with its images from lists; without a source, one rule `NAME@SITE` for each registry that may be meant.

    Raises ValueError: the source is not a registry, whose host could be named in a list.
    """
    by_host = hosts_of(sites)
    hosts = frozenset(by_host)
    host_of = {name: host for host, names in by_host.items() for name in names}
    if rule.source:
        if rule.source not in host_of:
            raise ValueError(
                f"rule {rule.name!r}: images: {rule.source} is not a registry at a host of its own"
            )
        images = ImageList(tuple(files), reading, host_of[rule.source], hosts)
        yield replace(rule, repositories=EVERYTHING, tags=(TagSelection(),), images=images)
        return
    tells = True
    for host, names in by_host.items():
        source = next((name for name in names if name not in rule.destinations), None)
        if source is not None:
            images = ImageList(tuple(files), reading, host, hosts, tells)
            yield replace(
                rule,
                name=f"{rule.name}@{source}",
                source=source,
                repositories=EVERYTHING,
                tags=(TagSelection(),),
                images=images,
            )
            tells = False


def narrowed(
    rules: Sequence[Rule], files: Sequence[str], sites: Mapping[str, SiteSettings]
) -> tuple[list[Rule], list[Remark]]:
    """The rules, each with those images of the lists that its source has; and what no rule takes.

    For `--images`: reads the lists once.
    """
    reading = Reading(variables=dict(os.environ))
    found = _read(files, reading)
    images, problems = merge(found)
    host_of = {name: host for host, names in hosts_of(sites).items() for name in names}
    taken = frozenset(host_of[rule.source] for rule in rules if rule.source in host_of)
    problems = list(problems)
    problems += [
        Remark(image.places[0], f"{image.reference}: no chosen rule has {image.reference.host} as its source")
        for image in images
        if image.reference.host not in taken
    ]
    result = []
    for rule in rules:
        host = host_of.get(rule.source)
        if host is not None and any(image.reference.host == host for image in images):
            listed = ImageList(tuple(files), reading, host, taken, tells=False, found=found)
            result.append(replace(rule, repositories=EVERYTHING, tags=(TagSelection(),), images=listed))
    return result, problems


def _read(files: Sequence[str], reading: Reading) -> Findings:
    from replicator.lists.files import read_files  # noqa: PLC0415 - the readers of all formats, and YAML

    return read_files(files, Path.cwd(), reading)
