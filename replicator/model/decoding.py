"""What decoding JSON of others may raise."""

from __future__ import annotations

from typing import Final

import msgspec

JSON_ERRORS: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""msgspec's own errors, and Python's errors for invalid UTF-8 and for nesting that is too deep."""
