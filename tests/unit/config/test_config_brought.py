"""What users bring: files from Windows, and Docker Hub by the names that people write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from replicator.config.load import load
from replicator.config.secrets import parse_secret
from replicator.errors import ConfigError
from replicator.sites.registry.settings import RegistrySettings

RULE = """
[[rule]]
name = "rule"
source = "hub"
destinations = ["here"]
repositories = {repositories}

[site.here]
url = "http://127.0.0.1:5000"

[site.hub]
url = "{url}"
"""


def config(tmp_path: Path, url: str = "https://hub.test", repositories: str = '["a/b"]') -> bytes:
    return (
        RULE.format(url=url, repositories=repositories).encode()
        + f'[agent]\nstate = "sqlite:///{tmp_path}/s"\n'.encode()
    )


WINDOWS: dict[str, Callable[[bytes], bytes]] = {
    "CRLF": lambda data: data.replace(b"\n", b"\r\n"),
    "byte order mark": lambda data: b"\xef\xbb\xbf" + data,
    "UTF-16": lambda data: data.decode().encode("utf-16"),
    "UTF-16, big end first": lambda data: b"\xfe\xff" + data.decode().encode("utf-16-be"),
}


@pytest.mark.parametrize("saved", WINDOWS.values(), ids=WINDOWS)
def test_config_saved_on_windows_is_read(tmp_path: Path, saved: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "replicator.toml"
    path.write_bytes(saved(config(tmp_path)))
    assert [rule.name for rule in load(path, {"HOME": str(tmp_path)}).rules] == ["rule"]


def test_config_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "replicator.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"replicator\.toml.*UTF-8"):
        load(path, {"HOME": str(tmp_path)})


SECRETS = [
    b"s3cret", b"s3cret\n", b"s3cret\r\n", b"s3cret\n\n", b"s3cret \n", b"s3cret\0", b"s3cret\t\r\n",
    b"\xef\xbb\xbfs3cret\r\n", "s3cret\r\n".encode("utf-16"),
]  # fmt: skip


@pytest.mark.parametrize("data", SECRETS)
def test_secret_saved_by_any_editor_is_the_secret(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "secret").write_bytes(data)
    assert parse_secret({"file": "secret"}, tmp_path, {})() == "s3cret"


@pytest.mark.parametrize("data", [b"s3\0cret", b"\0", b" \r\n", b"\xef\xbb\xbf"])
def test_secret_that_cannot_be_meant_is_named_and_not_shown(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "pw").write_bytes(data)
    with pytest.raises(ValueError, match=r"pw .*(NUL|empty)") as raised:
        parse_secret({"file": "pw"}, tmp_path, {})
    assert "s3" not in str(raised.value)


HUBS = [
    "docker.io",
    "index.docker.io",
    "registry-1.docker.io",
    "hub.docker.com",
    "registry.hub.docker.com",
    "Docker.IO",
]


@pytest.mark.parametrize("host", HUBS)
def test_docker_hub_is_known_by_all_its_names_and_official_images_by_theirs(
    tmp_path: Path, host: str
) -> None:
    path = tmp_path / "replicator.toml"
    path.write_bytes(config(tmp_path, f"https://{host}", '["alpine", "bitnami/*", "!debian"]'))
    loaded = load(path, {"HOME": str(tmp_path)})
    site = loaded.sites["hub"]
    assert isinstance(site, RegistrySettings)
    assert site.url == "https://registry-1.docker.io"
    [rule] = loaded.rules
    assert [glob.text for glob in rule.repositories.include] == ["library/alpine", "bitnami/*"]
    assert [glob.text for glob in rule.repositories.exclude] == ["library/debian"]


def test_other_registries_are_taken_at_their_word(tmp_path: Path) -> None:
    path = tmp_path / "replicator.toml"
    path.write_bytes(config(tmp_path, "https://docker.io.example.test", '["alpine"]'))
    loaded = load(path, {"HOME": str(tmp_path)})
    assert [glob.text for glob in loaded.rules[0].repositories.include] == ["alpine"]
