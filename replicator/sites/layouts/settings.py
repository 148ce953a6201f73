"""What a bucket or directory of images is told, free of the config's syntax."""

from __future__ import annotations

from typing import Literal

import msgspec

from replicator.sites.objects.settings import LocalSettings, S3Settings

Layout = Literal["distribution", "oci"]


class LayoutSettings(msgspec.Struct, frozen=True):
    """A store and the layout of what lies in it.

    `only` is for a folder that is itself one OCI image layout: the name that its one repository goes by.
    """

    store: LocalSettings | S3Settings
    layout: Layout
    only: str | None = None

    @property
    def name(self) -> str:
        """The site's name."""
        return self.store.name

    @property
    def url(self) -> str:
        """Where it is, as the config has it."""
        if isinstance(self.store, LocalSettings):
            return f"file://{self.store.path}"
        prefix = f"/{self.store.prefix}" if self.store.prefix else ""
        return f"s3://{self.store.bucket}{prefix}"
