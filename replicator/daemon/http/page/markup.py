"""HTML and SVG whose every string is escaped, unless it was made here."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Final

_VOID: Final = frozenset({"link", "meta", "br"})


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


Child = str | Markup | None


def element(
    name: str, /, *children: Child | Iterable[Child], **attributes: str | float | bool | None
) -> Markup:
    """An element. Children that are no `Markup` are escaped; None is left out, of children and attributes.

    In attributes' names `_` is `-`, and one at the end is dropped (`class_`); True is an attribute without a value.
    """
    text = f"<{name}"
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        written = key.removesuffix("_").replace("_", "-")
        text += f" {written}" if value is True else f' {written}="{html.escape(_attribute(value))}"'
    if name in _VOID:
        return Markup(text + ">")
    return Markup(f"{text}>{join(children)}</{name}>")


def join(children: Iterable[Child | Iterable[Child]]) -> Markup:
    """The children one after the other, escaped where they are no markup."""
    text = ""
    for child in children:
        if child is None:
            continue
        if isinstance(child, Markup):
            text += child
        elif isinstance(child, str):
            text += html.escape(child)
        else:
            text += join(child)
    return Markup(text)


def _attribute(value: str | float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
