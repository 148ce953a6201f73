"""From what lists mention to images: names expanded as docker does, duplicates merged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from replicator.lists.findings import FileLine, Findings, Remark
from replicator.model.names import Reference, parse_reference

MAX_PROBLEMS: Final = 100
"""That are told of one file."""


class ListedImage(msgspec.Struct, frozen=True):
    """An image that lists name. `reference` has a tag or a digest, or both: that tag with that digest.

    `places`: every line that names it. `is_latest_implied`: no line gave a tag or digest.
    """

    reference: Reference
    places: tuple[FileLine, ...]
    is_latest_implied: bool = False


def merge(found: Findings) -> tuple[Sequence[ListedImage], Sequence[Remark]]:
    """The images, each once, in the order of their first line; and all problems, in that order too, `MAX_PROBLEMS` a file."""
    places: dict[Reference, list[FileLine]] = {}
    implied: set[Reference] = set()
    problems: list[Remark] = []
    for text, place in found.mentions:
        try:
            reference = parse_reference(_without_scheme(text))
        except ValueError as error:
            problems.append(Remark(place, str(error)))
            continue
        if reference.tag is None and reference.digest is None:
            reference = Reference(reference.host, reference.repository, "latest")
            implied.add(reference)
        places.setdefault(reference, []).append(place)
    images = [ListedImage(each, tuple(dict.fromkeys(at)), each in implied) for each, at in places.items()]
    return images, _first_of_each_file([*found.problems, *problems])


def _first_of_each_file(problems: Sequence[Remark]) -> list[Remark]:
    """The problems by file and line; of a file with very many, which is not a list, also how many more there are."""
    by_file: dict[str, list[Remark]] = {}
    for problem in problems:
        by_file.setdefault(problem.place.file, []).append(problem)
    kept: list[Remark] = []
    for file, each in by_file.items():
        kept += sorted(each, key=lambda problem: problem.place.line)[:MAX_PROBLEMS]
        if (more := len(each) - MAX_PROBLEMS) > 0:
            kept.append(
                Remark(FileLine(file, 0), f"{more} more lines cannot be read; is this a list of images?")
            )
    return kept


def _without_scheme(text: str) -> str:
    """`docker://` and `oci://` stand before references of skopeo and Helm."""
    for scheme in ("docker://", "oci://"):
        text = text.removeprefix(scheme)
    return text


def hosts(images: Iterable[ListedImage]) -> Sequence[str]:
    """The hosts that the images are at, sorted."""
    return sorted({image.reference.host for image in images})
