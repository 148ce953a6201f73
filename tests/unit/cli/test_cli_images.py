"""How images and places are named on the command line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from replicator.cli.images import parse_image
from replicator.sites.objects.settings import LocalSettings, S3Settings

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "kind", "site", "repository", "tag", "digest"),
    [
        ("alpine", "registry", "docker.io", "library/alpine", None, None),
        ("host:5000/team/app:v1", "registry", "host:5000", "team/app", "v1", None),
        ("s3://bucket/team/app:v1", "store", "s3://bucket", "team/app", "v1", None),
        ("s3://bucket/some/prefix//team/app", "store", "s3://bucket/some/prefix", "team/app", None, None),
        (f"file:///srv/mirror//team/app@{DIGEST}", "store", "file:///srv/mirror", "team/app", None, DIGEST),
        ("oci:dir/of mine:v1", "layout", "oci:dir/of mine", "image", "v1", None),
        (f"oci:dir@{DIGEST}", "layout", "oci:dir", "image", None, DIGEST),
        ("oci-archive:a.tar", "archive", "oci-archive:a.tar", "image", None, None),
        ("oci-archive:/x/a.tar:team/app:v1", "archive", "oci-archive:/x/a.tar", "image", "team/app:v1", None),
    ],
)
def test_each_part_is_found(
    text: str, kind: str, site: str, repository: str, tag: str | None, digest: str | None
) -> None:
    found = parse_image(text)
    assert (found.kind, found.site, found.repository, found.tag, found.digest) == (
        kind,
        site,
        repository,
        tag,
        digest,
    )


def test_stores_are_settled() -> None:
    assert parse_image("s3://bucket/a/b//app").store == S3Settings("s3://bucket/a/b", "bucket", "a/b")
    assert parse_image("file:///srv//app").store == LocalSettings("file:///srv", Path("/srv"))
    assert parse_image("oci:rel").store == LocalSettings("oci:rel", Path.cwd() / "rel")
    assert parse_image("oci-archive:rel.tar").path == Path.cwd() / "rel.tar"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("file:///srv/mirror/team/app:v1", "write // before the repository"),
        ("file://srv//app", "must be the absolute path of a directory"),
        ("file:///a/../b//app", "has '..'"),
        ("s3:///app", "has no valid bucket name"),
        ("s3://key:hunter2@bucket/app", "contains credentials"),
        ("s3://bucket", "invalid repository name ''"),
        ("s3://bucket//APP", "invalid repository name 'APP'"),
        ("s3://bucket/app:-x", "invalid tag '-x'"),
        ("s3://bucket/app@sha256:12", "invalid digest"),
        ("oci:", "expected oci:DIR[:TAG]"),
        ("oci:dir:", "expected oci:DIR[:TAG]"),
        ("oci:dir:-x", "invalid tag '-x'"),
        ("oci-archive::x", "expected oci-archive:FILE[:NAME]"),
        ("https://host/app:v1", "without https://"),
    ],
)
def test_the_part_that_is_wrong_is_named(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(complaint)) as caught:
        parse_image(text)
    assert "hunter2" not in str(caught.value)
