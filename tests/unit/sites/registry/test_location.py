"""Locations are followed as they are, or not at all."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from replicator.model.digest import digest_of
from replicator.sites.registry.location import resolve_location, with_digest

REGISTRY = URL("https://registry.example.com")
ASKED = URL("https://registry.example.com/v2/app/blobs/uploads/")
OPAQUE = string.ascii_letters + string.digits + "-._~!$&'()*+,;=:@/?%"


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("/v2/app/blobs/uploads/1", "https://registry.example.com/v2/app/blobs/uploads/1"),
        ("1?_state=a%2Fb+c%3D", "https://registry.example.com/v2/app/blobs/uploads/1?_state=a%2Fb+c%3D"),
        ("?_state=x", "https://registry.example.com/v2/app/blobs/uploads/?_state=x"),
        ("//cdn.example.net/u/1", "https://cdn.example.net/u/1"),
        ("https://cdn.example.net/u?sig=a%2fb", "https://cdn.example.net/u?sig=a%2fb"),
        ("http://registry.example.com/u/1?x=%20", "https://registry.example.com/u/1?x=%20"),
    ],
)
def test_a_location_of_every_form_is_resolved(location: str, url: str) -> None:
    assert resolve_location(location, asked=ASKED, registry=REGISTRY) == url


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("", "empty"),
        ("/a b", "spaces"),
        ("/a\r\nX-Evil: 1", "control"),
        ("ftp://registry.example.com/u", "not an http"),
        ("file:///etc/passwd", "not an http"),
        ("http://cdn.example.net/u", "leaves https"),
        ("https://user:secret@cdn.example.net/u", "user information"),
        ("https://169.254.169.254/latest", "metadata"),
        ("https://127.0.0.1/u", "loopback"),
        ("https://[::1]/u", "loopback"),
        ("https://10.1.2.3/u", "private"),
        ("https://localhost/u", "loopback"),
        ("/" + "a" * 20_000, "characters"),
    ],
)
def test_a_location_that_is_unsafe_is_refused(location: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as raised:
        resolve_location(location, asked=ASKED, registry=REGISTRY)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("location", "url"),
    [
        (
            "/v2/app/blobs/uploads/1?_state=a%2Fb",
            "https://proxy.example.com/hub/v2/app/blobs/uploads/1?_state=a%2Fb",
        ),
        ("https://proxy.example.com/v2/app/u", "https://proxy.example.com/hub/v2/app/u"),
        ("/hub/v2/app/u", "https://proxy.example.com/hub/v2/app/u"),
        ("1", "https://proxy.example.com/hub/v2/app/blobs/uploads/1"),
        ("/storage/u", "https://proxy.example.com/storage/u"),
        ("https://cdn.example.net/v2/u", "https://cdn.example.net/v2/u"),
    ],
)
def test_a_prefix_that_a_proxy_strips_is_put_back(location: str, url: str) -> None:
    registry = URL("https://proxy.example.com/hub")
    asked = URL("https://proxy.example.com/hub/v2/app/blobs/uploads/")
    assert resolve_location(location, asked=asked, registry=registry) == url


def test_a_private_registry_may_lead_to_private_addresses() -> None:
    registry = URL("http://127.0.0.1:5000")
    url = resolve_location("http://10.0.0.1/u", asked=URL("http://127.0.0.1:5000/v2/"), registry=registry)
    assert url == "http://10.0.0.1/u"


@given(st.text(OPAQUE, max_size=100), st.text(OPAQUE.replace("?", ""), min_size=1, max_size=200))
def test_path_and_query_survive_byte_for_byte(path: str, query: str) -> None:
    location = f"/v2/{path.replace('?', '')}?_state={query}"
    url = resolve_location(location, asked=ASKED, registry=REGISTRY)
    assert url == f"https://registry.example.com{location}"
    assert with_digest(url, digest_of(b"")).startswith(url)


def test_the_digest_is_appended_and_nothing_else() -> None:
    digest = digest_of(b"")
    hexadecimal = digest.partition(":")[2]
    assert with_digest("https://x/u", digest) == f"https://x/u?digest=sha256%3A{hexadecimal}"
    assert with_digest("/u?a=b%2F", digest) == f"/u?a=b%2F&digest=sha256%3A{hexadecimal}"
