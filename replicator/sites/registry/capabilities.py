"""What a registry can do: a record, preset by host, corrected by what is seen, overridden by the config.

The sources of the presets are in docs/quirks.md. Nothing else in this package depends on which registry it talks to.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Literal, get_args
from urllib.parse import urlsplit

from replicator.errors import ConfigError
from replicator.ports import Capabilities

Strategy = Literal["put", "patch", "chunks"]
"""How a blob's bytes go up: in the closing PUT; in one PATCH; in several PATCHes with Content-Range."""

StatusRange = Literal["inclusive", "exclusive"]


@dataclass(frozen=True, slots=True)
class CapabilityRecord:
    """What one registry can do. Sizes are bytes; each field can be set in the config by its name.

    `upload`: the strategy to begin with; where it is refused, the next of put, patch, chunks is tried.
    `body_limit`: the largest body of one request, larger blobs go in chunks; 0 means no limit is known.
    `chunk_bytes`: what a chunk holds; 0 means that this registry cannot put chunks together.
    `resume`: the offset that it reports of a broken upload can be believed.
    `status_range`: whether that report's Range names the last byte (the standard) or the count (Quay).
    `mount`: blobs can be mounted from another repository.
    `catalog`, `delete_tag`: repositories can be listed; one tag can be deleted by DELETE of the tag
    (nothing does so yet).
    `tags_list`: the tags of a repository can be listed. Where they cannot, a destination is asked tag by tag.
    `foreign_layers`: manifests may name layers by URL alone (Windows base images). `sha256_only`: content by digests of
    other algorithms is refused. `head_manifests`: HEAD of a manifest tells what GET does. Where it does not, manifests
    are read instead.
    `tags_per_page`, `repositories_per_page`: what is asked for (`n`); 0 asks for nothing.
    """

    upload: Strategy = "put"
    body_limit: int = 0
    chunk_bytes: int = 16 * 1024 * 1024
    resume: bool = True
    status_range: StatusRange = "inclusive"
    mount: bool = True
    catalog: bool = True
    delete_tag: bool = False
    tags_list: bool = True
    head_manifests: bool = True
    foreign_layers: bool = True
    sha256_only: bool = False
    tags_per_page: int = 1000
    repositories_per_page: int = 1000


_LITERALS: Final[Mapping[str, Any]] = {"upload": Strategy, "status_range": StatusRange}

# M (one POST, one PUT) everywhere unless a registry is known to want otherwise: it is the standard's own way,
# and one request fewer for each of thousands of small blobs. The ladder finds out about the others.
_GENERIC: Final = CapabilityRecord()
_HUB: Final = CapabilityRecord(catalog=False)
_GHCR: Final = CapabilityRecord(upload="patch", chunk_bytes=0, resume=False, catalog=False)
_ECR: Final = CapabilityRecord(chunk_bytes=0, resume=False, mount=False)
_ECR_PUBLIC: Final = replace(_ECR, catalog=False)
_ACR: Final = CapabilityRecord(body_limit=16 * 1024 * 1024)
_GOOGLE: Final = CapabilityRecord(chunk_bytes=0, resume=False, delete_tag=True, tags_per_page=10_000)
_QUAY: Final = CapabilityRecord(status_range="exclusive", delete_tag=True, tags_per_page=100)
_GITLAB: Final = CapabilityRecord(delete_tag=True)
_ZOT: Final = CapabilityRecord(delete_tag=True)
_ARTIFACTORY: Final = CapabilityRecord(upload="patch", delete_tag=True)

_BY_HOST: Final[tuple[tuple[str, CapabilityRecord], ...]] = (
    ("docker.io", _HUB),
    ("ghcr.io", _GHCR),
    ("public.ecr.aws", _ECR_PUBLIC),
    ("azurecr.io", _ACR),
    ("gcr.io", _GOOGLE),
    ("pkg.dev", _GOOGLE),
    ("quay.io", _QUAY),
    ("registry.gitlab.com", _GITLAB),
    ("jfrog.io", _ARTIFACTORY),
)


def preset(host: str) -> CapabilityRecord | None:
    """The record of the service that owns this host name, None for a host of somebody's own."""
    host = host.lower().rstrip(".")
    if ".dkr.ecr." in host or ".dkr-ecr." in host:
        return _ECR
    for suffix, record in _BY_HOST:
        if host == suffix or host.endswith(f".{suffix}"):
            return record
    return None


def recognise(headers: Mapping[str, str]) -> CapabilityRecord | None:
    """The record of the software that an answer's headers give away, None where they do not.

    Args:
        headers: of any answer, looked up without regard to case.
    """
    if "X-JFrog-Version" in headers or any(name.lower().startswith("x-artifactory-") for name in headers):
        return _ARTIFACTORY
    if "Gitlab-Container-Registry-Version" in headers:
        return _GITLAB
    if "Blob-Upload-UUID" in headers or headers.get("Server", "").lower().startswith("zot"):
        return _ZOT
    if "_state=" in headers.get("Location", ""):
        return _GENERIC  # distribution, and what is built on it (Harbor)
    return None


class Knowledge:
    """What is known of one registry by now: `record`, which only gets better informed.

    Args:
        site: the site's name, for errors.
        url: the registry's URL; its host decides the preset.
        overrides: fields set in the config; what is seen later does not undo them.

    Raises:
        ConfigError: an override of an unknown name or with an impossible value; all of them at once.
    """

    def __init__(self, site: str, url: str, overrides: Mapping[str, bool | int | str]) -> None:
        self._overrides: dict[str, Any] = dict(overrides)
        problems = [problem for key, value in overrides.items() if (problem := _problem(site, key, value))]
        if problems:
            raise ConfigError(problems)
        known = preset(urlsplit(url).hostname or "")
        self.is_recognised = known is not None
        self.record = replace(known or _GENERIC, **self._overrides)
        self._refused_mounts = 0
        self._useless_heads = 0
        self._unlisted: set[str] = set()

    def see(self, headers: Mapping[str, str]) -> None:
        """Takes an answer's headers as a hint of the software, until one was found."""
        if self.is_recognised:
            return
        record = recognise(headers)
        if record is not None:
            self.is_recognised = True
            self.record = replace(record, **self._overrides)

    def learn(self, **changes: Any) -> None:
        """Notes what an answer proved, even against the config: a refusal is a refusal."""
        self.record = replace(self.record, **changes)

    def mount_ended(self, *, refused: bool) -> None:
        """Counts mounts that were answered with an error; after three in a row no more are tried."""
        self._refused_mounts = self._refused_mounts + 1 if refused else 0
        if self._refused_mounts >= 3:
            self.learn(mount=False)

    def head_ended(self, *, useful: bool) -> None:
        """Counts HEADs of manifests that did not tell what the GET after them did; after three in a row none is sent."""
        self._useless_heads = 0 if useful else self._useless_heads + 1
        if self._useless_heads >= 3:
            self.learn(head_manifests=False)

    def listing_refused(self, repository: str) -> None:
        """Notes that the tags of a repository which exists cannot be listed; it is not asked for them again."""
        self._unlisted.add(repository)

    def lists_tags(self, repository: str) -> bool:
        """Whether it is worth asking for the tags of the repository."""
        return self.record.tags_list and repository not in self._unlisted

    @property
    def capabilities(self) -> Capabilities:
        """The part of the record that the engine uses."""
        return Capabilities(mount=self.record.mount)


_FIELDS: Final = {field.name: field.default for field in fields(CapabilityRecord)}


def _problem(site: str, key: str, value: object) -> str | None:
    where = f"site.{site}.capabilities.{key}"
    if key not in _FIELDS:
        near = difflib.get_close_matches(key, _FIELDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(_FIELDS))}"
        return f"{where}: no such capability; {hint}"
    if key in _LITERALS:
        allowed = get_args(_LITERALS[key])
        return None if value in allowed else f"{where}: {value!r} is not one of {', '.join(allowed)}"
    if isinstance(_FIELDS[key], bool):
        return None if isinstance(value, bool) else f"{where}: {value!r} is not true or false"
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        return f"{where}: {value!r} is not a number of 0 or more"
    return None
