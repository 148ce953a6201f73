"""What is known of one registry: its vendor and what it can do, preset, corrected by what is seen, overridden by the config.

The presets are those of the vendor (`vendors/`), their sources in docs/quirks.md.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Final, get_args
from urllib.parse import urlsplit

from msgspec.structs import fields, replace

from replicator.errors import ConfigError
from replicator.ports import Capabilities
from replicator.sites.registry.record import CapabilityRecord, Sha512, StatusRange, Strategy, Tried
from replicator.sites.registry.vendors.known import by_headers, by_host, of_kind
from replicator.sites.registry.vendors.vendor import Vendor

_LITERALS: Final[Mapping[str, Any]] = {
    "upload": Strategy,
    "single_post": Tried,
    "sparse": Tried,
    "status_range": StatusRange,
    "sha512": Sha512,
}

# M (one POST, one PUT) everywhere unless a registry is known to want otherwise: it is the standard's own way,
# and one request fewer for each of thousands of small blobs. The ladder finds out about the others.
_GENERIC: Final = CapabilityRecord()


class Knowledge:
    """What is known of one registry by now: `record`, which only gets better informed.

    `vendor` is None until it is recognised; `why` says what told.

    Args:
        site: the site's name, for errors.
        url: the registry's URL; its host may tell the vendor.
        overrides: fields set in the config; what is seen later does not undo them.
        kind: the vendor's word in the config, "" to find out.

    Raises:
        ConfigError: an override of an unknown name or with an impossible value; all of them at once.
    """

    def __init__(
        self, site: str, url: str, overrides: Mapping[str, bool | int | str], kind: str = ""
    ) -> None:
        self._site = site
        self._overrides: dict[str, Any] = dict(overrides)
        problems = [problem for key, value in overrides.items() if (problem := _problem(site, key, value))]
        if problems:
            raise ConfigError(problems)
        host = urlsplit(url).hostname or ""
        self.vendor: Vendor | None = of_kind(kind) if kind else by_host(host)
        self.why = f'kind = "{kind}" in the config' if kind else f"host name {host}" if self.vendor else ""
        self.record = replace(self.vendor.record if self.vendor else _GENERIC, **self._overrides)
        self._refused_mounts = 0
        self._useless_heads = 0
        self._unlisted: set[str] = set()
        self._is_single_post_tried = False
        self.is_bulk_tried = False

    @property
    def is_recognised(self) -> bool:
        """Whether the vendor is known."""
        return self.vendor is not None

    def see(self, headers: Mapping[str, str]) -> None:
        """Takes an answer's headers as a hint of the software, until one was found."""
        if self.vendor is not None:
            return
        found = by_headers(headers)
        if found is not None:
            self.vendor, header = found
            self.why = f"header {header}"
            self.record = replace(self.vendor.record, **self._overrides)

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

    def tries_single_post(self) -> bool:
        """Whether to send a small blob in the POST: while it is not known whether that works, one upload finds out."""
        if self.record.single_post == "try" and not self._is_single_post_tried:
            self._is_single_post_tried = True
            return True
        return self.record.single_post == "yes"

    def listing_refused(self, repository: str) -> None:
        """Notes that the tags of a repository which exists cannot be listed; it is not asked for them again."""
        self._unlisted.add(repository)

    def lists_tags(self, repository: str) -> bool:
        """Whether it is worth asking for the tags of the repository."""
        return self.record.tags_list and repository not in self._unlisted

    @property
    def capabilities(self) -> Capabilities:
        """The part of the record that the engine uses."""
        sparse = None if self.record.sparse == "try" else self.record.sparse == "yes"
        return Capabilities(mount=self.record.mount, sparse=sparse)


_FIELDS: Final = {field.name: field.default for field in fields(CapabilityRecord)}


def _problem(site: str, key: str, value: object) -> str | None:
    where = f"site.{site}.capabilities.{key}"
    if key not in _FIELDS:
        near = difflib.get_close_matches(key, _FIELDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(_FIELDS))}"
        return f"{where}: unknown capability; {hint}"
    if key in _LITERALS:
        allowed = get_args(_LITERALS[key])
        return None if value in allowed else f"{where}: {value!r} is not one of {', '.join(allowed)}"
    if isinstance(_FIELDS[key], bool):
        return None if isinstance(value, bool) else f"{where}: {value!r} is not true or false"
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        return f"{where}: {value!r} is not a number of 0 or more"
    return None
