"""Tags that belong to another image: the fallback tag of its referrers, and cosign's older tags.

OCI distribution-spec, "Referrers Tag Schema"; cosign's specs/SIGNATURE_SPEC.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Final

import msgspec

from replicator.model.digest import Digest

_COMPANION: Final = re.compile(r"(sha256|sha512)-([0-9a-f]{64})(\.(?:sig|att|sbom))?", re.ASCII)
_HEX_CHARACTERS: Final = 64
LEGACY_SUFFIXES: Final = (".sig", ".att", ".sbom")


class Attached(msgspec.Struct, frozen=True):
    """What a vendor's listing of tags says of the referrers of a manifest.

    `state`: a made-up digest that changes when they change; None if the listing does not name them. `hides_tag`: there may be a
    `.sig` tag that the listing does not show.
    """

    state: Digest | None
    hides_tag: bool = False


def fallback_tag(subject: Digest) -> str:
    """The tag of the index that lists what refers to `subject`, at registries without the referrers API."""
    algorithm, _, hexadecimal = subject.partition(":")
    return f"{algorithm}-{hexadecimal[:_HEX_CHARACTERS]}"


def is_companion(tag: str) -> bool:
    """Whether the tag is a fallback tag or one of cosign's `.sig`, `.att` and `.sbom` tags."""
    return tag.startswith("sha") and _COMPANION.fullmatch(tag) is not None


def subject_tag(companion: str) -> str:
    """The fallback tag of the manifest that a companion tag belongs to."""
    return companion.partition(".")[0]


def subject_of(companion: str) -> Digest | None:
    """The manifest that a companion tag belongs to; None where the tag has only a part of the digest (sha512)."""
    algorithm, _, hexadecimal = subject_tag(companion).partition("-")
    return Digest(f"{algorithm}:{hexadecimal}") if algorithm == "sha256" else None


def state_of_companions(root: Digest, companions: Mapping[str, Digest | None]) -> str:
    """A short text that is different when the companion tags of an image are, as far as a listing tells; "" for none.

    Args:
        root: the image's root.
        companions: the companion tags of its repository, with what they name where that is known.
    """
    if not companions:
        return ""
    names = (fallback_tag(root), *legacy_tags(root))
    told = [f"{name}={companions[name] or ''}" for name in names if name in companions]
    return sha256(" ".join(told).encode()).hexdigest()[:16] if told else ""


def digest_of_texts(texts: Iterable[str]) -> Digest:
    """One digest of a set of texts, whatever their order."""
    return Digest("sha256:" + sha256(" ".join(sorted(texts)).encode()).hexdigest())


def with_states(
    companions: Mapping[str, Digest | None], attached: Mapping[Digest, Attached]
) -> dict[str, Digest | None]:
    """The companion tags, with a fallback tag for each manifest whose referrers a listing names.

    That tag need not exist, and its digest is made up: it changes when the referrers change.
    """
    found = dict(companions)
    for subject, told in attached.items():
        if told.state is not None:
            tag = fallback_tag(subject)
            named = found.get(tag)
            found[tag] = told.state if named is None else digest_of_texts((named, told.state))
    return found


def hidden_tags(attached: Mapping[Digest, Attached]) -> dict[str, Digest | None]:
    """The `.sig` tags that may exist although a listing of tags does not show them."""
    return {f"{fallback_tag(subject)}.sig": None for subject, told in attached.items() if told.hides_tag}


def legacy_tags(subject: Digest) -> tuple[str, ...]:
    """The tags under which cosign before version 3 keeps what belongs to `subject`."""
    return tuple(fallback_tag(subject) + suffix for suffix in LEGACY_SUFFIXES)
