"""Which format a text is in, told by its content, and what it mentions."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, Literal

from replicator.lists.bundles import bundle_images, is_bundle, left_out
from replicator.lists.compose import ComposeContext, Opened, OpenFile, is_compose, read_compose
from replicator.lists.dockerfile import read_dockerfile
from replicator.lists.document import DocumentError, Items, Node, Text, documents
from replicator.lists.findings import FileLine, Findings, Mention, Remark
from replicator.lists.kubernetes import is_manifest, manifest_images
from replicator.lists.plain import read_plain
from replicator.lists.reading import Reading

_DOCKERFILE: Final = re.compile(r"(?:FROM|ARG)[ \t]+\S", re.IGNORECASE)
_YAML: Final = re.compile(r"(?:---|%YAML|[{\[]|- |[\"']?[A-Za-z_][\w.-]{0,60}[\"']?:(?:[ \t]|$))")
_UNRENDERED: Final = re.compile(r"\{\{|###ZARF|\$\{")


def read_text(text: str, file: str, reading: Reading, open_file: OpenFile | None = None) -> Findings:
    """What a list mentions. A template that was not rendered is a problem, not an image.

    Args:
        text: the whole list.
        file: its name, for places; also tells a Dockerfile.
        reading: how.
        open_file: for other files that a Compose file names; None finds none.
    """
    kind = reading.format if reading.format != "auto" else _kind(text, file)
    match kind:
        case "plain":
            found = read_plain(text, file)
        case "dockerfile":
            found = read_dockerfile(text, file, reading.variables)
        case _:
            found = _read_documents(text, file, reading, open_file or _no_other_file)
    return _without_templates(found)


def _kind(text: str, file: str) -> Literal["plain", "dockerfile", "yaml"]:
    name = file.rpartition("/")[2].lower()
    if name.startswith(("dockerfile", "containerfile")) or name.endswith((".dockerfile", ".containerfile")):
        return "dockerfile"
    if name.endswith((".yaml", ".yml", ".json")):
        return "yaml"
    first = next(
        (line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")), ""
    )
    if _DOCKERFILE.match(first.strip()):
        return "dockerfile"
    return "yaml" if _YAML.match(first) else "plain"


def _read_documents(text: str, file: str, reading: Reading, open_file: OpenFile) -> Findings:
    found = Findings()
    count = known = 0
    try:
        for document in documents(text):
            count += 1
            known += _read_document(document, file, reading, open_file, found)
    except DocumentError as error:
        hint = "; render the template first (helm template)" if "{{" in text else ""
        found.problems.append(Remark(FileLine(file, error.line), f"not valid YAML: {error}{hint}"))
        return found
    if count and not known:
        expected = (
            "a list of images, a Compose file, Kubernetes manifests, or a hauler, oc-mirror or Zarf file"
        )
        found.problems.append(
            Remark(FileLine(file, 0), f"names no image in a form that is known; expected {expected}")
        )
    return found


def _read_document(document: Node, file: str, reading: Reading, open_file: OpenFile, found: Findings) -> bool:
    """Adds what the document mentions. Returns whether it is of a kind that is known."""
    if isinstance(document, Items) and not any(isinstance(item, Text) for item in document):
        return bool(
            [_read_document(item, file, reading, open_file, found) for item in document if is_manifest(item)]
        )
    if isinstance(document, Items):
        _mention(found, file, (item for item in document if isinstance(item, Text)))
    elif is_bundle(document):
        _mention(found, file, bundle_images(document))
        if note := left_out(document):
            found.notes.append(Remark(FileLine(file, 0), note))
    elif is_manifest(document):
        _mention(found, file, manifest_images(document, reading.paths))
    elif is_compose(document):
        context = ComposeContext(reading.variables, open_file, reading.profiles)
        found.add([read_compose(document, file, context, (file,))])
    else:
        return False
    return True


def _mention(found: Findings, file: str, texts: Iterable[Text]) -> None:
    for text in texts:
        found.mentions.append(Mention(text, FileLine(file, text.line)))


def _no_other_file(name: str) -> Opened:
    raise ValueError(f"{name} cannot be read from here: other files are found beside a file only")


def _without_templates(found: Findings) -> Findings:
    kept = Findings(problems=found.problems, notes=found.notes)
    for mention in found.mentions:
        if _UNRENDERED.search(mention.text):
            what = (
                f"{mention.text[:120]!r} is a template that was not rendered; render it first (helm template)"
            )
            kept.problems.append(Remark(mention.place, what))
        elif mention.text.strip():
            kept.mentions.append(Mention(mention.text.strip(), mention.place))
        else:
            kept.notes.append(Remark(mention.place, "empty image name skipped"))
    return kept
