"""Which proxy leads where, as the environment says it to Go's clients."""

from __future__ import annotations

import pytest
from yarl import URL

from replicator.errors import ConfigError
from replicator.sites.registry.proxy import Proxies, bypasses

NAMED = [
    ("10.255.255.1", "10.255.255.1", None),
    ("10.0.0.0/8,192.168.0.0/16", "10.255.255.1", None),
    ("10.0.0.0/8", "10.1.2.3", 5000),
    ("fd00::/8", "[fd00::1]", None),
    ("[fd00::1]:5000", "fd00::1", 5000),
    ("registry.corp.test", "registry.corp.test", None),
    ("registry.corp.test", "REGISTRY.corp.test.", None),
    ("corp.test", "registry.corp.test", None),
    (".corp.test", "registry.corp.test", None),
    ("*.corp.test", "registry.corp.test", None),
    ("registry.*.test", "registry.corp.test", None),
    ("registry.corp.test:5000", "registry.corp.test", 5000),
    ("a.test, registry.corp.test", "registry.corp.test", None),
    ("a.test registry.corp.test", "registry.corp.test", None),
    ("*", "registry.corp.test", None),
]
NOT_NAMED = [
    ("", "registry.corp.test", None),
    ("10.0.0.0/8", "11.0.0.1", None),
    ("10.0.0.0/8:5000", "10.0.0.1", 443),
    ("10.0.0.0/8", "10.example.test", None),
    ("orp.test", "corp.test", None),
    (".corp.test", "corp.test", None),
    ("registry.corp.test:5000", "registry.corp.test", 443),
    ("::/0", "10.0.0.1", None),
    (",, ,", "registry.corp.test", None),
    ("10.0.0.0/99", "10.0.0.1", None),
]


@pytest.mark.parametrize(("entries", "host", "port"), NAMED)
def test_named_host_is_reached_directly(entries: str, host: str, port: int | None) -> None:
    assert bypasses(entries, host, port or 443)


@pytest.mark.parametrize(("entries", "host", "port"), NOT_NAMED)
def test_host_that_is_not_named_is_not(entries: str, host: str, port: int | None) -> None:
    assert not bypasses(entries, host, port or 443)


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize(
    ("url", "no_proxy"),
    [
        ("http://127.0.0.1:5000", ""),
        ("https://registry.test", "*"),
        ("https://registry.test", "registry.test"),
    ],
)
def test_socks_is_not_judged_for_a_site_that_would_not_use_it(
    url: str, no_proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://user:pw@127.0.0.1:1080")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert Proxies("hub", None, URL(url)).find(URL(url)) is None


def test_socks_for_the_other_scheme_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "socks5://127.0.0.1:1080")
    url = URL("http://registry.test")
    assert Proxies("hub", None, url).find(url) is None


def test_socks_that_would_be_used_is_refused_with_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5h://user:pw@127.0.0.1:1080")
    with pytest.raises(ConfigError, match=r"environment ALL_PROXY: .*SOCKS.*site\.hub\.proxy") as raised:
        Proxies("hub", None, URL("https://registry.test"))
    assert "pw" not in str(raised.value)
