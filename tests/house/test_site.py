"""The documentation's site has every page once. Its links are checked by `make docs`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scripts.site import SECTIONS, navigation

ROOT = Path(__file__).parents[2]


def leaves(order: list[dict[str, Any]]) -> list[str]:
    return [
        page
        for entry in order
        for listed in entry.values()
        for page in ([listed] if isinstance(listed, str) else listed)
    ]


def test_every_page_named_in_the_navigation_exists() -> None:
    named = [f"{name}.md" for names in SECTIONS.values() for name in names]
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_every_page_of_the_manual_has_a_section() -> None:
    pages = [str(page.relative_to(ROOT)) for page in (ROOT / "docs").glob("*.md")]
    (more,) = [entry["More"] for entry in navigation(pages) if "More" in entry]
    assert more == []


def test_every_page_is_in_the_navigation_once() -> None:
    pages = [
        "README.md",
        "docs/README.md",
        "docs/new.md",
        "docs/registries/README.md",
        "docs/registries/acme.md",
    ]
    order = navigation(pages)
    assert sorted(leaves(order)) == sorted(pages)
    sections = {title: listed for entry in order for title, listed in entry.items()}
    assert sections["Registries"] == ["docs/registries/README.md", "docs/registries/acme.md"]
    assert sections["More"] == ["docs/new.md"]
