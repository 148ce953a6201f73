"""Adapters: one folder a kind of site. Each implements `replicator.ports`."""
