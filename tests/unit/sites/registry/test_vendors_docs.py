"""The overview of vendors is what their modules say."""

from __future__ import annotations

from scripts.registries import PAGES, overview


def test_the_overview_is_up_to_date() -> None:
    written = (PAGES / "README.md").read_text()
    assert written == overview(), "run: python -m scripts.registries > docs/registries/README.md"
