"""URLs of sites, and proxies: what each scheme may contain. Errors never contain credentials."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
"""Hosts of this machine, as `host_of` gives them."""
_CONTROL: Final = re.compile(r"[\x00-\x20\x7f]")
_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_SCHEMES: Final = "https:// or http:// (a registry), s3:// (a bucket) or file:// (a directory)"


def parse_url(text: str) -> str:
    """A site's URL without its trailing slash; raises ValueError, which never contains credentials."""
    scheme, colon, _ = text.partition("://")
    if not colon:
        scheme = "file" if text.startswith("/") else "https"
        hint = "" if "@" in text or _CONTROL.search(text) else f"; write {scheme}://{text}"
        raise ValueError(f"must start with {_SCHEMES}{hint}")
    if scheme == "s3":
        parse_bucket(text)
    elif scheme == "file":
        parse_directory(text)
    elif scheme in {"http", "https"}:
        parse_registry(text)
    else:
        raise ValueError(f"must start with {_SCHEMES}")
    return text.rstrip("/") or text


def parse_registry(text: str) -> str:
    """The URL of a registry without its trailing slash; raises ValueError, which never contains credentials."""
    if not text.startswith(("http://", "https://")):
        raise ValueError("must start with https:// or http://")
    if "@" in text.partition("://")[2].partition("/")[0]:
        raise ValueError("contains credentials; set username and password instead")
    parts = _split_url(text)
    if parts.query or parts.fragment or "?" in text or "#" in text:
        raise ValueError("has a query or fragment; write only scheme, host and optional port and path")
    return text.rstrip("/")


def parse_bucket(text: str) -> tuple[str, str]:
    """Bucket and prefix of `s3://BUCKET[/PREFIX]`; raises ValueError, which never contains credentials."""
    bucket, _, prefix = text.removeprefix("s3://").rstrip("/").partition("/")
    if "@" in bucket:
        raise ValueError("contains credentials; set access_key and secret_key instead")
    if not _BUCKET.fullmatch(bucket):
        raise ValueError("has no valid bucket name; write s3://BUCKET or s3://BUCKET/PREFIX")
    if prefix and (
        _CONTROL.search(prefix) or any(part in {"", ".", ".."} for part in prefix.split("/")) or "?" in prefix
    ):
        raise ValueError(
            f"the prefix {prefix[:80]!r} has an empty part, '.', '..', a space or a query; write s3://BUCKET/some/prefix"
        )
    return bucket, prefix


def parse_directory(text: str) -> Path:
    """The absolute path of `file:///PATH`, without percent-decoding; raises ValueError."""
    rest = text.removeprefix("file://")
    if not rest.startswith("/"):
        raise ValueError("must be the absolute path of a directory, with three slashes; write file:///PATH")
    if "\0" in rest or ".." in rest.split("/"):
        raise ValueError("has '..' or a NUL character in its path; write file:///PATH")
    return Path(rest)


def parse_proxy(text: str) -> str:
    """A proxy's URL, or "" for none; raises ValueError, which never contains credentials."""
    if not text:
        return text
    if not text.startswith(("http://", "https://")):
        raise ValueError('must start with http:// or https://, or be "" for no proxy')
    _split_url(text)
    return text


def _split_url(text: str) -> SplitResult:
    if _CONTROL.search(text):
        raise ValueError("contains a space or control character")
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError(
            "is not a valid URL: host or port is malformed"
        ) from None  # the text may have credentials
    if not host:
        raise ValueError("has no host; write https://HOST[:PORT]")
    return parts


def host_of(url: str) -> str | None:
    """The host of a URL; None without one, or where it is invalid."""
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
