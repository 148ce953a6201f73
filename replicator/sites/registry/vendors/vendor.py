"""What is known of one vendor's registries, as data: each module of this package describes one in this shape.

Nothing outside the adapter of registries asks which vendor a registry is of; it sees what follows from it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from replicator.model.names import MAX_REPOSITORY_LENGTH
from replicator.notifications.format import Format
from replicator.sites.registry.identity.settings import Identity
from replicator.sites.registry.record import CapabilityRecord
from replicator.sites.registry.vendors.creation import RepositoryCreation
from replicator.sites.registry.vendors.listing import BulkListing

DigestDeletion = Literal["takes tags", "refused while tagged", "refused in an index", "not possible"]
"""What becomes of the tags of a manifest that is deleted by digest: they go with it, or the registry refuses."""

TagDeletion = Literal["registry", "vendor", "whole version", "not possible"]
"""How one tag is deleted: by the standard's DELETE, by the vendor's own API, only together with all other tags of its
digest, or not at all."""


class Sign(msgspec.Struct, frozen=True):
    """A header that gives the software away.

    Args:
        header: its name in any case; `*` at the end stands for the rest of the name.
        value: searched in its value; a header of that name suffices where it is empty.
    """

    header: str
    value: str = ""

    def shows_in(self, headers: Mapping[str, str]) -> str | None:
        """The name of the header that gives the software away; None where none does."""
        wanted, is_prefix = self.header.lower().removesuffix("*"), self.header.endswith("*")
        for name, value in headers.items():
            found = name.lower()
            if (found.startswith(wanted) if is_prefix else found == wanted) and re.search(
                self.value, value, re.IGNORECASE
            ):
                return name
        return None


class NameRules(msgspec.Struct, frozen=True):
    """Which repositories a registry can hold, of those that the standard's grammar allows.

    Args:
        max_length: in characters.
        min_parts: fewest parts between slashes.
        max_parts: most parts between slashes; None for no limit.
        shape: says which parts there are, for the error ("NAMESPACE/NAME").
    """

    max_length: int = MAX_REPOSITORY_LENGTH
    min_parts: int = 1
    max_parts: int | None = None
    shape: str = ""

    def problem(self, repository: str) -> str | None:
        """Why the registry could not hold a repository of that name; None where it could."""
        if len(repository) > self.max_length:
            return f"{len(repository)} characters, {self.max_length} are allowed"
        parts = repository.count("/") + 1
        if parts < self.min_parts or (self.max_parts is not None and parts > self.max_parts):
            return f"{parts} {'part' if parts == 1 else 'parts'}, names there are {self.shape}"
        return None


class Refusal(msgspec.Struct, frozen=True):
    """An answer by which a registry refuses to move a tag. All that is given must hold.

    Args:
        statuses: of HTTP; any where empty.
        code: one of the error codes of the answer.
        text: part of its message, in any case.
    """

    statuses: frozenset[int] = frozenset()
    code: str = ""
    text: str = ""

    def matches(self, status: int | None, codes: tuple[str, ...], text: str) -> bool:
        """Whether the answer is such a refusal."""
        return (
            (not self.statuses or status in self.statuses)
            and (not self.code or self.code in codes)
            and self.text.lower() in text.lower()
        )


ANY_IMMUTABLE: Final = (
    Refusal(code="TAG_IMMUTABLE"),
    Refusal(code="IMAGETAGALREADYEXISTSEXCEPTION"),
    Refusal(frozenset({412}), code="PRECONDITION"),
    Refusal(frozenset({400, 403, 409, 412}), text="immutab"),
)
"""Refusals to move a tag that are understood from every registry."""


class Vendor(msgspec.Struct, frozen=True, kw_only=True):
    """One vendor's registries.

    Args:
        kind: its word in the config (`kind = "harbor"`), and the name of its page in docs/registries/.
        title: how people call it.
        hosts: domains that are its own: a host of that name or below it.
        host_pattern: matches a whole host name of its own, where domains do not tell.
        signs: headers of answers that give it away.
        record: what its registries can do.
        names: which repositories they can hold.
        tag_deletion: how one tag is deleted.
        digest_deletion: what deleting a digest does to its tags.
        immutable: how they refuse to move a tag, beside `ANY_IMMUTABLE`.
        present: how they refuse the body of a blob that another upload has just brought.
        identity: who we are there by default, where its own hosts imply a cloud; None where they do not.
        read_right: what credentials need to read a repository, for whoever is refused.
        write_right: what they need to write one.
        is_public: some of its content may be read without credentials.
        api: base URL of its API, where its hosts are not the ones that serve it; a registry at another host serves its
            own.
        listing: how it lists tags with what they name; None where it cannot.
        creation: how its repositories are created, where a push does not do that or not as wanted.
        notifications: what they send to webhooks; None where nothing.
        limits: limits worth knowing, one sentence each.
    """

    kind: str
    title: str
    hosts: tuple[str, ...] = ()
    host_pattern: re.Pattern[str] | None = None
    signs: tuple[Sign, ...] = ()
    record: CapabilityRecord = msgspec.field(default_factory=CapabilityRecord)
    names: NameRules = msgspec.field(default_factory=NameRules)
    tag_deletion: TagDeletion = "registry"
    digest_deletion: DigestDeletion = "takes tags"
    immutable: tuple[Refusal, ...] = ()
    present: tuple[Refusal, ...] = ()
    identity: Identity | None = None
    read_right: str = ""
    write_right: str = ""
    is_public: bool = True
    api: str = ""
    listing: BulkListing | None = None
    creation: RepositoryCreation | None = None
    notifications: Format | None = None
    limits: tuple[str, ...] = ()

    def owns(self, host: str) -> bool:
        """Whether the host name (lower case, without port) is the vendor's own."""
        if self.host_pattern is not None and self.host_pattern.fullmatch(host):
            return True
        return any(host == domain or host.endswith(f".{domain}") for domain in self.hosts)

    def gives_away(self, headers: Mapping[str, str]) -> str | None:
        """The header of an answer that gives the vendor away; None where none does."""
        return next((name for sign in self.signs if (name := sign.shows_in(headers))), None)
