"""What decoding JSON of others may raise."""

from __future__ import annotations

from typing import Final

import msgspec

JSON_ERRORS: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""msgspec's own errors are not all: bytes that are no UTF-8 and nesting without end come as Python has them."""
