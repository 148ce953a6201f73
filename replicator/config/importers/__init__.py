"""Configs of other tools, as a config of ours that means the same."""

from __future__ import annotations

from replicator.config.importers.draft import Draft
from replicator.config.importers.recognize import TOOLS, Source, Tool, import_config
from replicator.config.importers.render import render

__all__ = ["TOOLS", "Draft", "Source", "Tool", "import_config", "render"]
