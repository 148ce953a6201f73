"""The pictures of the README are there, and small enough for a repository."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
MAX_BYTES = 80_000


def test_pictures_of_the_readme_are_committed_and_small() -> None:
    named = set(re.findall(r"\]\((docs/images/[^)]+)\)", (ROOT / "README.md").read_text()))
    kept = {str(file.relative_to(ROOT)) for file in (ROOT / "docs/images").iterdir()}
    assert named == kept
    assert all((ROOT / name).stat().st_size < MAX_BYTES for name in named)


def test_pictures_load_nothing_from_elsewhere() -> None:
    svg = (ROOT / "docs/images/demo.svg").read_text()
    assert "http" not in svg.replace("http://www.w3.org/2000/svg", "").replace(
        "http://127.0.0.1", ""
    ).replace("https://www.textualize.io", "")
