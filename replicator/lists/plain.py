"""Plain lists: one reference a line, as Rancher, RKE2 and K3s publish them."""

from __future__ import annotations

from replicator.lists.findings import FileLine, Findings, Mention, Remark


def read_plain(text: str, file: str) -> Findings:
    """The references of a plain list. `#` begins a comment, at the start of a line or after white space."""
    found = Findings()
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition(" #")[0].partition("\t#")[0].split()
        if not words or words[0].startswith("#"):
            continue
        place = FileLine(file, number)
        if len(words) > 1 and "{{" not in line:
            found.problems.append(
                Remark(place, f"one image a line is expected, not {len(words)} words: {line.strip()[:120]!r}")
            )
            continue
        found.mentions.append(Mention(" ".join(words), place))
    return found
