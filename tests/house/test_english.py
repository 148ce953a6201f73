"""What people read is plain technical English, and refers to nothing outside the repository."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
STILTED = re.compile(
    r"(?<!there )\b(?:is|are) no (?!longer\b|more\b|need\b|reason\b)[a-z]"  # "X is no Y": "X is not a Y", "invalid Y"
    r"|\bis not there\b"  # "not found", "does not exist"
    r"|\bstands? in\b"  # "is in", "is defined in"
    r"|\bgoes? not with\b"  # "cannot be combined with"
    r"|\banother than\b"  # "different from"
    r"|\bwhere no wire\b"  # "for air-gapped sites"
    r"|\bpass(?:es)? (?:it|them) over\b"  # "skips it"
    r"|\btells nobody\b"  # "has no receiver"
    r"|\bunder way\b"  # "in progress"
    r"|\btakes? (?:it|this|that|no request) on\b"  # "accepts the request"
    r"|\bends? (?:it )?softly\b"  # "stops gracefully"
    r"|\bcannot be had\b"  # "is not available"
    r"|\b(?:at most|up to|after|for|in which|of) so (?:many|long|often)\b"  # "at most N", "for N seconds"
    r"|(?<!\w)so (?:many|long|often)\b(?= (?:times|more|of the)\b)"  # "this many times"
    r"|\b(?:where|if|while) there is none\b",  # "if it does not exist", "without"
    re.IGNORECASE,
)
OUTSIDE = re.compile(
    r"\bI-\d|\([A-Z]{1,2}\.\d+[):]|\b(?:protocols|vendors|design|models|fleet)\.md\b|\bissue \d+\b"
)
QUIRK = re.compile(r"docs/quirks\.md#([a-z0-9-]+)")
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)")


def documents() -> list[Path]:
    return [
        *sorted((ROOT / "docs").rglob("*.md")),
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "config.example.toml")),
        *sorted((ROOT / "systemd").iterdir()),
        *sorted((ROOT / "packaging").rglob("*.*")),
        *sorted(path for path in (ROOT / "deploy").rglob("*.*") if path.is_file()),
        ROOT / "grafana" / "alerts.yml",
        ROOT / "grafana" / "rules.yml",
    ]


def modules() -> list[Path]:
    return sorted((ROOT / "replicator").rglob("*.py"))


def found(pattern: re.Pattern[str], files: list[Path]) -> list[str]:
    return [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
        for file in files
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if pattern.search(line)
    ]


def test_code_is_in_plain_english() -> None:
    assert found(STILTED, modules()) == []


def test_documents_are_in_plain_english() -> None:
    assert found(STILTED, documents()) == []


def test_nothing_refers_to_files_outside_the_repository() -> None:
    assert found(OUTSIDE, [*modules(), *documents()]) == []


def anchors(text: str) -> set[str]:
    """The anchors of headings, as GitHub and GitLab make them."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_comments_name_quirks_that_are_documented() -> None:
    text = (ROOT / "docs" / "quirks.md").read_text()
    known = anchors(text)
    assert len(known) == len(re.findall(r"^#+ ", text, re.MULTILINE)), "two headings have the same anchor"
    named = {
        name
        for file in [*modules(), *(ROOT / "tests").rglob("*.py")]
        if file != Path(__file__)
        for name in QUIRK.findall(file.read_text())
    }
    assert named
    assert named <= known


def broken_links(file: Path) -> Iterator[str]:
    text = re.sub(r"^```.*?^```", "", file.read_text(), flags=re.MULTILINE | re.DOTALL)
    for path, anchor in LINK.findall(text):
        if path.startswith(("http://", "https://", "mailto:")):
            continue
        target = (file.parent / path) if path else file
        if not target.exists():
            yield f"{file.relative_to(ROOT)}: {path}"
        elif anchor and target.suffix == ".md" and anchor not in anchors(target.read_text()):
            yield f"{file.relative_to(ROOT)}: {path}#{anchor}"


def test_links_between_documents_lead_somewhere() -> None:
    files = [file for file in documents() if file.suffix == ".md"]
    assert [link for file in files for link in broken_links(file)] == []
