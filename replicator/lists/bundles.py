"""Lists that other air-gap tools read: hauler, oc-mirror and Zarf."""

from __future__ import annotations

from collections.abc import Iterator

from replicator.lists.document import Mapping, Node, Text, at, items, mapping


def is_bundle(document: Node) -> bool:
    """Whether the document is one that `bundle_images` reads."""
    return _kind(document) in {"Images", "ImageSetConfiguration", "ZarfPackageConfig"} and (
        _kind(document) != "Images" or "hauler" in str(at(document, "apiVersion"))
    )


def bundle_images(document: Node) -> Iterator[Text]:
    """The images of a hauler `Images`, an oc-mirror `ImageSetConfiguration` or a `ZarfPackageConfig`."""
    match _kind(document):
        case "Images":
            yield from _named(at(document, "spec", "images"))
        case "ImageSetConfiguration":
            yield from _named(at(document, "mirror", "additionalImages"))
        case _:
            for component in items(at(document, "components")):
                yield from (image for image in items(at(component, "images")) if isinstance(image, Text))


def left_out(document: Node) -> str | None:
    """What an oc-mirror configuration selects beside single images, and is not read here."""
    mirror = mapping(at(document, "mirror"))
    rest = sorted(name for name in ("platform", "operators", "helm") if mirror.get(name) is not None)
    return f"mirror.{', mirror.'.join(rest)}: only additionalImages are read" if rest else None


def _named(nodes: Node) -> Iterator[Text]:
    for node in items(nodes):
        name = at(node, "name") if isinstance(node, Mapping) else node
        if isinstance(name, Text):
            yield name


def _kind(document: Node) -> str:
    kind = at(document, "kind")
    return kind if isinstance(kind, Text) else ""
