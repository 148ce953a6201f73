"""What a piece of the program costs in imports."""

from __future__ import annotations

import subprocess
import sys

from tests.fakes.process import ROOT


def loaded_by(code: str) -> set[str]:
    """The modules that an interpreter of its own has loaded after the code."""
    script = f"{code}\nimport sys; print(*sys.modules, sep='\\n', file=sys.stderr)"
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(ended.stderr.split())
