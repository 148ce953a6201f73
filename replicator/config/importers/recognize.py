"""Which tool a config is of, told by its keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from replicator.config.importers import dregsy, harbor, imagesyncer, ocync, regsync, skopeo
from replicator.config.importers.draft import Draft
from replicator.lists.document import DocumentError, Items, Mapping, Node, at, documents, mapping

Tool = Literal["regsync", "skopeo", "image-syncer", "dregsy", "ocync", "harbor"]
TOOLS: Final[tuple[Tool, ...]] = get_args(Tool)


@dataclass(frozen=True, slots=True)
class Source:
    """A file to import: its name, for messages, and its text."""

    name: str
    text: str


def import_config(
    sources: Sequence[Source], tool: Tool | None, *, destination: str | None, scoped: bool
) -> Draft:
    """The draft of another tool's config.

    Args:
        sources: the file; for image-syncer also its auth file.
        tool: whose it is; None tells by its keys.
        destination: where skopeo sync copies to, which its file does not say: `HOST[/PATH]`.
        scoped: as skopeo's `--scoped`.

    Raises:
        ValueError: it is not YAML or JSON, of no tool that is known, or lacks what it must have.
    """
    parsed = [_parse(source) for source in sources]
    known = tool or next((found for document in parsed if (found := recognize(document))), None)
    if known is None:
        raise ValueError(f"{sources[0].name}: not recognized; name the tool with --from ({', '.join(TOOLS)})")
    if known != "image-syncer" and len(parsed) != 1:
        raise ValueError(f"{known} has one file; {len(parsed)} are given")
    match known:
        case "skopeo" if destination is None:
            raise ValueError("skopeo's file does not say where to: add --destination HOST[/PATH]")
        case "skopeo":
            return skopeo.read(parsed[0], destination or "", scoped=scoped)
        case "image-syncer":
            return imagesyncer.read(parsed)
        case "regsync":
            return regsync.read(parsed[0])
        case "dregsy":
            return dregsy.read(parsed[0])
        case "ocync":
            return ocync.read(parsed[0])
        case "harbor":
            return harbor.read(parsed[0])


def recognize(document: Node) -> Tool | None:
    """The tool of a config, None where its keys do not tell."""
    first = next(iter(document), None) if isinstance(document, Items) else document
    keys = mapping(first)
    entries = list(keys.values())
    nested = [entry for entry in entries if isinstance(entry, Mapping)]
    marks: list[tuple[bool, Tool]] = [
        ("dest_registry" in keys or "src_registry" in keys, "harbor"),
        (isinstance(at(document, "sync"), Items), "regsync"),
        (isinstance(at(document, "tasks"), Items), "dregsy"),
        (isinstance(at(document, "mappings"), Items), "ocync"),
        (any(key.startswith("images") for entry in nested for key in entry), "skopeo"),
        (bool(entries) and ("images" in keys or not nested), "image-syncer"),
    ]
    return next((tool for holds, tool in marks if holds), None)


def _parse(source: Source) -> Node:
    # image-syncer's own examples are JSON with comments.
    text = "\n".join(line for line in source.text.splitlines() if not line.lstrip().startswith("//"))
    try:
        return next(iter(documents(text)), None)
    except DocumentError as error:
        raise ValueError(f"{source.name}:{error.line}: not valid YAML or JSON: {error}") from error
