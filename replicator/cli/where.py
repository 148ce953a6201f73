"""`replicator where`; see `search`."""

from __future__ import annotations

from replicator.cli.search import where_command as command

__all__ = ["command"]
