"""A fuzzer over documents of others: damaged ones are read or refused by name, never an error of ours.

A hundred examples of each in every run, for minutes in `make soak`. What it finds is kept as an `@example`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from typing import Any

import botocore.session
import pytest
from botocore.exceptions import ClientError
from botocore.parsers import PROTOCOL_PARSERS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from yarl import URL

from replicator.demo.images import image, index
from replicator.model.manifest import parse_manifest
from replicator.model.strictjson import read_object
from replicator.notifications.format import Delivery, read_events
from replicator.sites.archive import tar
from replicator.sites.layouts.oci.index import parse_index
from replicator.sites.objects.s3.bucket import FAILURES
from replicator.sites.objects.s3.errormap import BucketAddress, s3_error
from replicator.sites.objects.s3.listing import page_of
from replicator.sites.objects.s3.moments import read_time
from replicator.sites.registry.challenge import best_challenge, parse_challenges
from replicator.sites.registry.links import next_link
from replicator.sites.registry.location import resolve_location
from replicator.sites.registry.vendors.senders import format_of

IMAGE = image("a").manifest
REGISTRY = URL("https://registry.example.com")
OF_S3 = botocore.session.get_session().get_service_model("s3").operation_model("ListObjectsV2").output_shape
LISTING = b"""<?xml version="1.0"?><ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>a/b</Key>
<LastModified>2026-01-01T00:00:00Z</LastModified><ETag>"x"</ETag><Size>5</Size></Contents><CommonPrefixes><Prefix>a/</Prefix>
</CommonPrefixes></ListBucketResult>"""
ENVELOPE = json.dumps(
    {
        "events": [
            {
                "id": "1",
                "timestamp": "2026-01-01T00:00:00Z",
                "action": "push",
                "target": {
                    "mediaType": IMAGE.media_type,
                    "digest": IMAGE.digest,
                    "repository": "a/b",
                    "tag": "v1",
                },
            }
        ]
    }
).encode()
LAYOUT = json.dumps(
    {
        "schemaVersion": 2,
        "manifests": [
            {
                "mediaType": IMAGE.media_type,
                "digest": IMAGE.digest,
                "size": len(IMAGE.body),
                "annotations": {"org.opencontainers.image.ref.name": "v1"},
            }
        ],
    }
).encode()
TAR = (
    tar.header("oci-layout", 5)
    + b"hello"
    + tar.padding(5)
    + tar.header("index.json", 2)
    + b"{}"
    + tar.padding(2)
    + tar.trailer()
)


def _tar(data: bytes) -> None:
    fd = os.memfd_create("archive")
    try:
        os.write(fd, data)
        tar.scan(fd)
    finally:
        os.close(fd)


def _listing(data: bytes) -> None:
    try:
        reply = PROTOCOL_PARSERS["rest-xml"](timestamp_parser=read_time).parse(
            {"body": data, "headers": {}, "status_code": 200}, OF_S3
        )
    except FAILURES as error:
        s3_error(BucketAddress("s", "b", "http://s"), "list", error)
        return
    page_of(reply, 0)


def _refusal(data: bytes) -> None:
    """Whatever an error's XML says, as botocore hands it over."""
    text: Any = data.decode("utf-8", "replace")
    answer = {
        "Error": {"Code": text[:40], "Message": text, "Region": text, "Endpoint": text},
        "ResponseMetadata": {
            "HTTPStatusCode": 400 + len(data) % 200,
            "HTTPHeaders": {"retry-after": text[:30]},
        },
    }
    error = s3_error(BucketAddress("s", "b", "http://s"), "list", ClientError(answer, "List"))
    assert str(error).isprintable()


def _notifications(data: bytes) -> None:
    delivery = Delivery({}, read_object(data), "https://hub.example")
    sender = format_of(delivery, None)
    if sender is not None:
        read_events(sender, delivery)


DOCUMENTS: dict[str, tuple[Callable[[bytes], object], Sequence[bytes]]] = {
    "manifest": (lambda data: parse_manifest(data, ""), [IMAGE.body, index([image("a")]).manifest.body]),
    "index.json": (parse_index, [LAYOUT]),
    "webhook": (_notifications, [ENVELOPE]),
    "tar": (_tar, [TAR]),
    "S3 listing": (
        _listing,
        [
            LISTING,
            LISTING.replace(b"2026", b"9" * 400 + b"2026"),
            LISTING.replace(b"2026", b"9:" + b"9" * 40 + b"2026"),
            LISTING.replace(b"00Z", b"0/LZ"),
        ],
    ),
    "challenge": (
        lambda data: best_challenge(parse_challenges([data.decode("latin-1")])),
        [
            b'Bearer realm="https://auth.example.com/token",service="r",scope="repository:a/b:pull,push", Basic realm="x"'
        ],
    ),
    "Link": (
        lambda data: next_link([data.decode("latin-1")]),
        [b'</v2/_catalog?last=a%2Fb&n=100>; rel="next", <https://r.example.com/x>; rel=prev; title="a, b"'],
    ),
    "Location": (
        lambda data: resolve_location(
            data.decode("latin-1"), asked=REGISTRY / "v2/a/blobs/uploads/", registry=REGISTRY
        ),
        [
            b"https://r.example.com:5000/v2/a/blobs/uploads/1?_state=x%3D&digest=sha256:0#f",
            b"/v2/a/b?x",
            b"//h/x",
        ],
    ),
    "S3 error": (_refusal, [LISTING, b"\x1b[2J\xff", b"9" * 60]),
}
PIECES = [
    b"", b"null", b"[]", b"{}", b"-1", b"1e400", b'"', b"\\u0000", b"\\ud800", b"\xff", b"\x00" * 20, b"9" * 400, b"<", b">",
    b"&x;", b"[" * 2000, b"true", b"../../etc", b"\x1b[2J", "\u202e".encode(), b",", b":", b"\n", b"sha256:", b"2026-99-99",
]  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, documents: Sequence[bytes]) -> bytes:
    """A document with some stretches replaced, repeated or cut out."""
    data = draw(st.sampled_from(documents))
    for _ in range(draw(st.integers(1, 4))):
        begin = draw(st.integers(0, len(data)))
        end = min(len(data), begin + draw(st.integers(0, 30)))
        piece = draw(st.sampled_from(PIECES) | st.binary(max_size=6) | st.just(data[begin:end] * 2))
        data = data[:begin] + piece + data[end:]
    return data


def _fuzz(name: str, examples: int) -> None:
    read, documents = DOCUMENTS[name]

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(damaged(documents))
    def reads_or_refuses(data: bytes) -> None:
        try:
            read(data)
        except ValueError as refused:
            if len(str(refused)) > 2_000:
                raise AssertionError("the refusal quotes without bound") from refused

    reads_or_refuses()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_whole_documents_are_read(name: str) -> None:
    read, documents = DOCUMENTS[name]
    for document in documents:
        read(document)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_damaged_documents_are_read_or_refused(name: str) -> None:
    _fuzz(name, 100)


@pytest.mark.soak
@pytest.mark.parametrize("name", DOCUMENTS)
def test_many_damaged_documents_are_read_or_refused(name: str) -> None:
    _fuzz(name, 4_000)
