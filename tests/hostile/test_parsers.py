"""Every parser of foreign text takes linear time and raises only what it says, whatever it is fed."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable

import pytest
from botocore.exceptions import ClientError
from hypothesis import example, given, settings
from hypothesis import strategies as st
from yarl import URL

from replicator.model.manifest import parse_manifest
from replicator.model.strictjson import read_object
from replicator.notifications.format import Delivery, read_events
from replicator.scrub import scrub
from replicator.sites.archive import tar
from replicator.sites.layouts.oci.index import parse_index
from replicator.sites.objects.s3.errormap import BucketAddress, s3_error
from replicator.sites.registry.challenge import best_challenge, parse_challenges
from replicator.sites.registry.errormap import read_error, retry_after
from replicator.sites.registry.links import next_link
from replicator.sites.registry.location import resolve_location
from replicator.sites.registry.markup import title_of, words_of
from replicator.sites.registry.page import web_page
from replicator.sites.registry.vendors.senders import format_of

PLACE = BucketAddress("s", "b", "http://s")
REGISTRY = URL("https://registry.example.com")


def _location(text: str) -> None:
    with contextlib.suppress(ValueError):
        resolve_location(text, asked=REGISTRY / "v2/a/blobs/uploads/1", registry=REGISTRY)


def _manifest(text: str) -> None:
    with contextlib.suppress(ValueError):
        parse_manifest(text.encode("utf-8", "replace"), "")


def _refused(read: Callable[[bytes], object], text: str) -> None:
    with contextlib.suppress(ValueError):
        read(text.encode("utf-8", "replace"))


def _notifications(data: bytes) -> None:
    delivery = Delivery({}, read_object(data), "https://hub.example")
    sender = format_of(delivery, None)
    if sender is not None:
        read_events(sender, delivery)


def _tar(data: bytes) -> None:
    """The text as the names and headers of an archive."""
    fd = os.memfd_create("archive")
    try:
        os.write(
            fd,
            tar.header(data[:3000].decode("utf-8", "replace"), len(data))
            + data
            + tar.padding(len(data))
            + data,
        )
        tar.scan(fd)
    finally:
        os.close(fd)


PARSERS: dict[str, Callable[[str], object]] = {
    "error": lambda text: read_error(text.encode("utf-8", "replace")),
    "title": title_of,
    "words": words_of,
    "page": lambda text: web_page({}, text.encode("utf-8", "replace")),
    "link": lambda text: next_link([text]),
    "challenge": lambda text: best_challenge(parse_challenges([text])),
    "location": _location,
    "retry-after": lambda text: retry_after({"Retry-After": text, "Date": text}, 0.0),
    "manifest": _manifest,
    "scrub": scrub,
    "index.json": lambda text: _refused(parse_index, text),
    "webhook": lambda text: _refused(_notifications, text),
    "tar": lambda text: _refused(_tar, text),
    "S3 error": lambda text: str(
        s3_error(PLACE, "list", ClientError({"Error": {"Code": text, "Message": text}}, "List"))
    ),
}
PIECES = [
    "<", "<a", "<title", "<title>", "<style>", "< >", ">", "&", "&amp", "&#", "<x>;", "<x>; rel=", '<x>; rel="', ";a=b",
    "; ;", "a", "a ", "a=", 'a="', 'a="\\', "a,", "Basic ", 'Bearer realm="x",', "\\", "[", "{", '{"a":', '"', ",", "%",
    "//", "http://", "?", "#", "@", ":", " ", "\t", "=", "sha256:", "sha256:" + "0" * 64, "\x00", "\u202e", "9",
]  # fmt: skip


def _steps(parse: Callable[[str], object], text: str) -> int:
    """How many lines of Python it runs: unlike seconds, the same each time."""
    count = 0

    def trace(*_: object) -> object:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        parse(text)
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("name", PARSERS)
@pytest.mark.parametrize("piece", PIECES)
def test_twice_the_text_takes_at_most_twice_the_steps(name: str, piece: str) -> None:
    half, whole = ((piece * size)[:size] for size in (4 * 1024, 8 * 1024))
    PARSERS[name](half)  # what is done once a process (compiling, caching) is not the text's
    assert _steps(PARSERS[name], whole) <= 2.2 * _steps(PARSERS[name], half) + 200


@pytest.mark.parametrize("name", PARSERS)
def test_64_kib_of_anything_are_read_at_once(name: str) -> None:
    """What runs in C counts no steps; here a quadratic one would take minutes (the time limit of a test is 60 s)."""
    for piece in PIECES:
        PARSERS[name]((piece * 64 * 1024)[: 64 * 1024])


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=60)
@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=6), max_size=30).map("".join))
@example("http://h:99999999/")
@example("http://[::1")
@example("//[")
@example("<title>\ud800")
def test_any_text_is_read_or_refused_by_name(name: str, text: str) -> None:
    PARSERS[name](text)
