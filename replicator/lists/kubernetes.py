"""Kubernetes manifests and rendered Helm charts: what their pods run.

Source: Kubernetes API reference, PodSpec. A kind that is not known is looked at as a pod template (`spec.template.spec`),
as many custom resources have one (Argo Rollouts, Knative services, OpenKruise), and by the paths that the user names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from replicator.lists.document import Items, Mapping, Node, Text, at, items, mapping
from replicator.lists.reading import ImagePath

_POD_SPECS: Final = (
    ("spec",),
    ("spec", "template", "spec"),
    ("spec", "jobTemplate", "spec", "template", "spec"),
    ("template", "spec"),
)
_CONTAINERS: Final = ("containers", "initContainers", "ephemeralContainers")


def is_manifest(document: Node) -> bool:
    """Whether the document says what kind of resource it is."""
    return isinstance(document, Mapping) and "kind" in document and "apiVersion" in document


def manifest_images(document: Node, paths: Sequence[ImagePath]) -> Iterator[Text]:
    """The images of a resource, or of each of a `List`."""
    waiting: list[Node] = [document]
    while waiting:
        resource = mapping(waiting.pop())
        kind = resource.get("kind")
        if isinstance(kind, Text) and kind.endswith("List") and isinstance(resource.get("items"), Items):
            waiting += reversed(items(resource.get("items")))
            continue
        for path in _POD_SPECS:
            yield from _pod_images(at(resource, *path))
        for custom in paths:
            if not custom.kind or custom.kind == kind:
                yield from (found for found in custom.find(resource) if isinstance(found, Text))


def _pod_images(spec: Node) -> Iterator[Text]:
    for name in _CONTAINERS:
        for container in items(at(spec, name)):
            image = at(container, "image")
            if isinstance(image, Text):
                yield image
    for volume in items(at(spec, "volumes")):
        reference = at(volume, "image", "reference")
        if isinstance(reference, Text):
            yield reference
