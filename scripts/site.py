"""Builds the documentation as a site: `make docs`.

The pages are copied into a tree like the repository's, with the other files that they link to, so that the same relative
links work on GitHub and in the site. A link that leads nowhere fails the build.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
SOURCE: Final = ROOT / "build" / "site-source"
SITE: Final = ROOT / "build" / "site"
COPIED: Final = ("docs", "deploy", "grafana", "systemd", "packaging")
FILES: Final = ("*.md", "config.example.toml", "Containerfile", "LICENSE")
# Page by page; registries are all in their folder, and pages that are not named come last.
SECTIONS: Final = {
    "Start": ("docs/README", "docs/install", "deploy/kubernetes/README", "docs/concepts"),
    "How-tos": (
        *("docs/webhooks", "docs/credentials", "docs/creation", "docs/lists", "docs/airgap", "docs/rancher"),
        *("docs/layouts", "docs/serve", "docs/trust", "docs/platforms", "docs/content"),
    ),
    "Migration": ("docs/migrating",),
    "Operation": (
        *("docs/metrics", "docs/runbook", "docs/state", "docs/scaling"),
        *("docs/performance", "docs/security"),
    ),
    "Reference": ("docs/commands", "docs/configuration", "docs/api", "docs/compatibility", "docs/quirks"),
    "Registries": (),
    "Development": ("docs/architecture", "docs/decisions", "docs/mutants", "docs/releasing", "CONTRIBUTING"),
    "More": ("CHANGELOG", "SECURITY"),
}


def navigation(pages: list[str]) -> list[dict[str, Any]]:
    """The order of all pages, each given as its path in the repository."""
    known = set(pages)
    order: list[dict[str, Any]] = [{"Overview": "README.md"}]
    sections = {title: [f"{name}.md" for name in names] for title, names in SECTIONS.items()}
    folder = "docs/registries"
    registries = sorted(page for page in known if page.startswith(folder) and page != f"{folder}/README.md")
    sections["Registries"] = [f"{folder}/README.md", *registries]
    named = {page for listed in sections.values() for page in listed} | {"README.md"}
    sections["More"] += sorted(known - named)
    for title, listed in sections.items():
        order.append({title: [page for page in listed if page in known]})
    return order


def main() -> int:
    """Copies the pages, and builds the site; returns mkdocs' exit code."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    SOURCE.mkdir(parents=True)
    for name in COPIED:
        shutil.copytree(ROOT / name, SOURCE / name)
    for pattern in FILES:
        for file in ROOT.glob(pattern):
            shutil.copy(file, SOURCE)
    pages = sorted(str(page.relative_to(SOURCE)) for page in SOURCE.rglob("*.md"))
    config = ROOT / "build" / "mkdocs.json"
    settings = {
        "INHERIT": "../mkdocs.yml",
        "docs_dir": str(SOURCE),
        "site_dir": str(SITE),
        "nav": navigation(pages),
    }
    config.write_text(json.dumps(settings))
    command = (sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(config))
    # Without its advertisement for other generators.
    return subprocess.run(command, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
