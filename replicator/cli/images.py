"""References to images on the command line: in a registry, bucket, directory, OCI layout or archive."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from replicator.config.urls import parse_bucket, parse_directory
from replicator.model.digest import Digest, parse_digest
from replicator.model.names import parse_reference, parse_repository, parse_tag
from replicator.sites.objects.settings import LocalSettings, S3Settings

ONE: Final = "image"
"""The name of the only repository of a layout or archive."""

Kind = Literal["registry", "store", "layout", "archive"]

_DIGEST: Final = re.compile(r"(.*)@(sha(?:256|512):[^@/]*)")


@dataclass(frozen=True)
class ImageName:
    """The site and name of an image. `site` is the name of the site; for a registry, its host.

    `store` is set for buckets, directories and layouts. `path` is set for archives, whose `tag` may be a full image
    name.
    """

    kind: Kind
    site: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None
    store: LocalSettings | S3Settings | None = None
    path: Path | None = None

    def tagged(self, tag: str | None) -> ImageName:
        """The same image with another tag."""
        return replace(self, tag=tag)


def parse_image(text: str) -> ImageName:
    """Parses an image reference.

    `[HOST[:PORT]/]REPOSITORY`, `s3://BUCKET[/PREFIX/]/REPOSITORY`, `file:///PATH//REPOSITORY`, each with `[:TAG]`
    and `[@DIGEST]`; `oci:DIR[:TAG]`, `oci-archive:FILE[:NAME]`. In a bucket or directory, `//` separates the root of the
    site from the repository; without it, the root is the bucket.

    Raises:
        ValueError: names the offending part.
    """
    for prefix in ("oci:", "oci-archive:"):
        if text.startswith(prefix):
            return _file_or_layout(text, prefix)
    if text.startswith(("s3://", "file://")):
        return _stored(text)
    if "://" in text:
        raise ValueError(
            f"{text!r}: write an image of a registry as HOST/REPOSITORY:TAG, without {text.partition('://')[0]}://"
        )
    found = parse_reference(text)
    return ImageName("registry", found.host, found.repository, found.tag, found.digest)


def is_place(text: str) -> bool:
    """Whether the text is the URL of a bucket, directory, layout or archive, not a registry or a site of the config."""
    return text.startswith(("s3://", "file://", "oci:", "oci-archive:"))


def parse_store(text: str) -> LocalSettings | S3Settings:
    """The bucket or directory of `s3://BUCKET[/PREFIX]` or `file:///PATH`; raises ValueError."""
    if text.startswith("s3://"):
        bucket, prefix = parse_bucket(text)
        return S3Settings(text, bucket, prefix)
    return LocalSettings(text, parse_directory(text))


def absolute(path: str) -> Path:
    """The path as an absolute path."""
    return Path(path).absolute()


def _stored(text: str) -> ImageName:
    rest, digest = _without_digest(text)
    scheme, _, tail = rest.partition("://")
    root, slashes, name = tail.partition("//")
    if not slashes:
        if scheme == "file":
            raise ValueError(
                f"{text!r}: write // before the repository, as in file:///srv/mirror//team/app:v1"
            )
        root, _, name = tail.partition("/")
    site = f"{scheme}://{root}"
    try:
        store = parse_store(site)
    except ValueError as error:
        # The text may contain credentials, which must not be printed.
        raise ValueError(f"{scheme}://: {error}" if "@" in root else f"{text!r}: {error}") from None
    repository, tag = _named(text, name)
    return ImageName("store", site, repository, tag, digest, store)


def _named(text: str, name: str) -> tuple[str, str | None]:
    repository, colon, tag = name.partition(":")
    try:
        return parse_repository(repository), parse_tag(tag) if colon else None
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}") from None


def _file_or_layout(text: str, prefix: str) -> ImageName:
    """Like skopeo: the first colon after the prefix ends the path."""
    rest, digest = _without_digest(text.removeprefix(prefix))
    path, colon, tag = rest.partition(":")
    if not path or (colon and not tag):
        what = "FILE[:NAME]" if prefix == "oci-archive:" else "DIR[:TAG]"
        raise ValueError(f"{text!r}: expected {prefix}{what}")
    site = f"{prefix}{path}"
    if prefix == "oci-archive:":
        return ImageName("archive", site, ONE, tag or None, digest, path=absolute(path))
    if tag:
        try:
            parse_tag(tag)
        except ValueError as error:
            raise ValueError(f"{text!r}: {error}") from None
    return ImageName("layout", site, ONE, tag or None, digest, LocalSettings(site, absolute(path)))


def _without_digest(text: str) -> tuple[str, Digest | None]:
    match = _DIGEST.fullmatch(text)
    if match is None:
        return text, None
    try:
        return match[1], parse_digest(match[2])
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}") from None
