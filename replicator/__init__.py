"""Keeps container registries in step across data centers."""

__version__ = "0.1.0"
