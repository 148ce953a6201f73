"""An S3-compatible bucket as an object store. Importing this loads aiobotocore."""

from replicator.sites.objects.s3.store import S3Store

__all__ = ["S3Store"]
