"""Image lists: files that name images, from Rancher's text files to Helm output, and what they name."""

from __future__ import annotations

from replicator.lists.files import ListError, read_files
from replicator.lists.findings import Findings, Mention, Place, Remark
from replicator.lists.formats import FORMATS, Format, Reading, read_text
from replicator.lists.references import ListedImage, merge

__all__ = [
    "FORMATS",
    "Findings",
    "Format",
    "ListError",
    "ListedImage",
    "Mention",
    "Place",
    "Reading",
    "Remark",
    "merge",
    "read_files",
    "read_text",
]
