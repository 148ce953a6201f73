"""What an object store is told, free of the config's syntax."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from replicator.flow.settings import LimitSettings
from replicator.sites.bounds import DEFAULT_MAX_BLOB_BYTES
from replicator.sites.registry.settings import ReadSecret
from replicator.sites.timeouts import Timeouts

__all__ = ["LocalSettings", "ReadSecret", "S3Keys", "S3Settings"]


class LocalSettings(msgspec.Struct, frozen=True):
    """A directory. `path` is absolute; it may itself be a symbolic link, nothing below it may lead out of it.

    `must_exist`: whether an empty or missing directory is a failure, as its file system may not be mounted. None: from
    when `ports.ExpectsContent` is told so, or something was written.
    """

    name: str
    path: Path
    limits: LimitSettings = msgspec.field(default_factory=LimitSettings)
    must_exist: bool | None = None


class S3Keys(msgspec.Struct, frozen=True):
    """Static credentials; read again after the store refused them."""

    access_key: ReadSecret
    secret_key: ReadSecret
    session_token: ReadSecret | None = None


class S3Settings(msgspec.Struct, frozen=True):
    """A bucket, or what of it lies below `prefix` (no slash at either end; "" is the whole bucket).

    `endpoint` None is AWS itself. `region` None: as the environment or the profile says, else "us-east-1".
    `path_style` None: path style where there is an `endpoint` (few of them have a DNS name per bucket), else as
    botocore decides. Without `keys`, credentials come from botocore's own chain: environment, `profile`, web
    identity, container or instance role. `sse` and `storage_class` go with everything that is written. A blob of
    more than `max_blob_bytes` is not read.
    """

    name: str
    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    region: str | None = None
    path_style: bool | None = None
    profile: str | None = None
    keys: S3Keys | None = None
    sse: Literal["AES256", "aws:kms"] | None = None
    kms_key: str | None = None
    storage_class: str | None = None
    limits: LimitSettings = msgspec.field(default_factory=LimitSettings)
    timeouts: Timeouts = msgspec.field(default_factory=Timeouts)
    max_blob_bytes: int = DEFAULT_MAX_BLOB_BYTES
