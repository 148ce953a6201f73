from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from replicator.config.load import load
from replicator.config.secrets import MAX_SECRET_BYTES, Secret, parse_secret
from replicator.config.show import show
from replicator.errors import ConfigError

HUSH = "hush-hush-42"


def test_a_file_is_read_again_with_each_call(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("first\r\n")
    secret = parse_secret({"file": "secret"}, tmp_path, {})
    assert secret() == "first"
    file.write_text("second\n")
    assert secret() == "second"
    file.unlink()
    with pytest.raises(ConfigError, match=f"secret file {file} cannot be read: No such file"):
        secret()


def test_a_variable_is_read_again_with_each_call(tmp_path: Path) -> None:
    environ = {"TOKEN": "first"}
    secret = parse_secret({"env": "TOKEN"}, tmp_path, environ)
    environ["TOKEN"] = "second"
    assert secret() == "second"


def test_a_credential_lies_in_systemds_folder(tmp_path: Path) -> None:
    (tmp_path / "hub").write_text(HUSH)
    secret = parse_secret({"credential": "hub"}, Path("/elsewhere"), {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert secret() == HUSH


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "is empty; write { credential"),
        (HUSH.encode(), "must be one of"),
        ({}, "must be one of"),
        ({"file": HUSH, "env": "X"}, "must be one of"),
        ({"vault": HUSH}, "must be one of"),
        ({"env": 5}, "must be one of"),
        ({"env": "ABSENT"}, "the environment variable ABSENT is not set"),
        ({"env": "EMPTY"}, "the environment variable EMPTY is empty"),
        ({"credential": "hub"}, r"\$CREDENTIALS_DIRECTORY is not set"),
        ({"credential": "../hub"}, "invalid credential name"),
        ({"file": "absent"}, "absent cannot be read: No such file"),
        ({"file": "."}, "is not a regular file"),
        ({"file": "empty"}, "empty is empty"),
        ({"file": "large"}, "larger than"),
        ({"file": "binary"}, "is not UTF-8"),
    ],
)
def test_a_secret_that_cannot_be_read_is_an_error_without_its_content(
    tmp_path: Path, value: Any, message: str
) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "large").write_text(HUSH + "x" * MAX_SECRET_BYTES)
    (tmp_path / "binary").write_bytes(HUSH.encode() + b"\xff")
    with pytest.raises(ValueError, match=message) as caught:
        parse_secret(value, tmp_path, {"EMPTY": ""})
    assert HUSH not in repr(caught.value)


def test_a_secret_never_shows(tmp_path: Path) -> None:
    file = tmp_path / "replicator.toml"
    (tmp_path / "token").write_text(HUSH)
    file.write_text(f"""
        [site.a]
        url = "https://a.example.com"
        username = "u"
        password = "{HUSH}"
        proxy = "http://user:{HUSH}@proxy.example.com:3128"
        [site.b]
        url = "https://b.example.com"
        bearer_token = {{ file = "token" }}
        [site.c]
        url = "https://c.example.com"
        identity_token = "${{HUSH}}"
    """)
    loaded = load(file, {"HOME": "/home/me", "HUSH": HUSH})
    assert HUSH not in repr(loaded)
    assert HUSH not in show(loaded)
    assert HUSH not in repr(loaded.effective)
    assert 'proxy = "http://***@proxy.example.com:3128"' in show(loaded)
    assert 'bearer_token = {file = "token"}' in show(loaded)
    assert show(loaded).count('"***"') == 2


@pytest.mark.parametrize(
    "site",
    [
        f'url = "https://user:{HUSH}@hub.example.com"',
        f'url = "user:{HUSH}@hub.example.com"',
        f'url = "https://hub.example.com"\nproxy = "http://user:{HUSH}@[bad"',
        f'url = "https://hub.example.com"\nproxy = "user:{HUSH}@proxy"',
        f'url = "https://hub.example.com"\nusername = "u"\npassword = {{ literal = "{HUSH}" }}',
        f'url = "https://hub.example.com"\nusername = "u"\npassword = ["{HUSH}"]',
        f'url = "https://hub.example.com"\nusername = ["{HUSH}"]\npassword = "{HUSH}"',
        f'url = "https://hub.example.com"\npassword = "{HUSH}"\nbearer_token = "{HUSH}"',
        f'url = "https://hub.example.com"\npassword = "{HUSH}${{ABSENT}}"\nusername = "u"',
        f'password = "{HUSH}',
    ],
)
def test_no_error_repeats_a_secret(tmp_path: Path, site: str) -> None:
    file = tmp_path / "replicator.toml"
    file.write_text(f"[site.hub]\n{site}\n")
    with pytest.raises(ConfigError) as caught:
        load(file, {"HOME": "/home/me"})
    assert caught.value.problems
    assert HUSH not in str(caught.value)


def test_variables_for_commands_are_read_as_secrets_are_and_masked(tmp_path: Path) -> None:
    file = tmp_path / "replicator.toml"
    file.write_text("""
        [site.a]
        url = "https://a.example.com"
        [site.b]
        url = "s3://bucket"
        [notify.chat]
        command = ["true"]
        env = { CHAT = { env = "CHAT_TOKEN" }, PLAIN = "hush-hush" }
        [[rule]]
        name = "r"
        source = "a"
        destinations = ["b"]
        repositories = ["**"]
        hooks = { before = ["true"], env = { TOKEN = { env = "CHAT_TOKEN" } } }
    """)
    loaded = load(file, {"HOME": "/home/me", "CHAT_TOKEN": HUSH})
    assert {name: secret() for name, secret in loaded.commands["r"].env.items()} == {"TOKEN": HUSH}
    assert loaded.notify["chat"].env["PLAIN"]() == "hush-hush"
    assert "hush-hush" not in show(loaded)
    assert HUSH not in show(loaded)


def test_repr_names_the_place() -> None:
    assert repr(Secret("literal", HUSH, {})) == "Secret(***)"
    assert repr(Secret("env", "TOKEN", {"TOKEN": HUSH})) == "Secret(env='TOKEN')"
