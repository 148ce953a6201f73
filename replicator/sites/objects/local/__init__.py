"""A directory as an object store."""

from replicator.sites.objects.local.store import LocalStore

__all__ = ["LocalStore"]
