"""How lists are read. Imports no parser: every command that reads a config imports this."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, get_args

import msgspec

Format = Literal["auto", "plain", "compose", "kubernetes", "dockerfile", "hauler", "oc-mirror", "zarf"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)


class ImagePath(msgspec.Struct, frozen=True):
    """A JSONPath to images in custom resources; of `kind` only, or (empty) of any."""

    kind: str
    path: str

    def find(self, resource: Any) -> list[Any]:
        """What the path leads to in a resource."""
        return [found.value for found in _compiled(self.path).find(resource)]


def parse_image_path(text: str) -> ImagePath:
    """`[KIND:]JSONPATH`, the path as kubectl writes it (`{.spec.image}`) or with `$` (`$.spec.images[*].name`).

    Raises:
        ValueError: says what is wrong.
    """
    kind, colon, path = text.partition(":")
    if not colon or not kind.isalnum():
        kind, path = "", text
    path = path.strip().removeprefix("{").removesuffix("}").strip()
    if not path.startswith("$"):
        path = f"${path}" if path.startswith((".", "[")) else f"$.{path}"
    try:
        _compiled(path)
    except Exception as error:
        raise ValueError(f"{text!r} is not a JSONPath such as Prometheus:{{.spec.image}}: {error}") from error
    return ImagePath(kind, path)


@functools.lru_cache(maxsize=64)
def _compiled(path: str) -> Any:
    from jsonpath_ng.parser import parse  # noqa: PLC0415 - a tenth of a second that few configs need

    return parse(path)


class Reading(msgspec.Struct, frozen=True):
    """How lists are read.

    `format`: "auto" tells by content. `paths`: where custom resources keep images. `variables`: for Compose files and
    build arguments. `profiles`: of Compose; None takes the services of all.
    """

    format: Format = "auto"
    paths: Sequence[ImagePath] = ()
    variables: Mapping[str, str] = msgspec.field(default_factory=dict)
    profiles: frozenset[str] | None = None
