"""Durable memory: what was last replicated where. An accelerator, never the truth."""
