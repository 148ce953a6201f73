"""What a placement remembers of what was put: the manifests, and which parts of the image. Pure."""

from __future__ import annotations

from hashlib import sha256

from replicator.model.image import Image


def fingerprint_of(image: Image, part: str) -> str:
    """A short text that is another whenever another set of manifests is put for a root, or other parts (`Rule.part`)."""
    return with_part(sha256("".join(sorted(image.manifests)).encode()).hexdigest()[:16], part)


def with_part(fingerprint: str, part: str) -> str:
    """The same manifests, found whole as far as a rule wants them."""
    manifests = fingerprint.partition(":")[0]
    return f"{manifests}:{part}" if part else manifests


def part_in(fingerprint: str) -> str:
    """The parts that were put."""
    return fingerprint.partition(":")[2]
