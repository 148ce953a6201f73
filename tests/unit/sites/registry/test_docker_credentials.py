from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from replicator.errors import ConfigError
from replicator.sites.registry import credentials
from replicator.sites.registry.credentials import Credentials, DockerLogins


def _auth(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {
        "HOME": str(tmp_path),
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
    }


def _write(path: Path, document: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))


def _helper(tmp_path: Path, name: str, script: str) -> None:
    path = tmp_path / "bin" / f"docker-credential-{name}"
    _write(path, f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


async def test_nothing_anywhere_means_anonymous(environ: dict[str, str]) -> None:
    assert await DockerLogins("reg.example", environ).find("a/b") is None


@pytest.mark.parametrize(
    "key", ["reg.example:5000", "https://reg.example:5000", "http://reg.example:5000/v2/", "REG.example:5000"]
)
async def test_docker_config_is_found_under_any_spelling_of_its_key(
    tmp_path: Path, environ: dict[str, str], key: str
) -> None:
    _write(tmp_path / ".docker" / "config.json", {"auths": {key: {"auth": _auth("u", "p:with:colons\0\0")}}})
    assert await DockerLogins("reg.example:5000", environ).find("a") == Credentials("u", "p:with:colons")
    assert await DockerLogins("reg.example", environ).find("a") is None


@pytest.mark.parametrize(
    "host", ["docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"]
)
async def test_docker_hub_is_found_by_every_alias(tmp_path: Path, environ: dict[str, str], host: str) -> None:
    _write(
        tmp_path / ".docker" / "config.json",
        {"auths": {"https://index.docker.io/v1/": {"auth": _auth("u", "p")}}},
    )
    assert await DockerLogins(host, environ).find("library/x") == Credentials("u", "p")


async def test_tokens_and_plain_words_are_read(tmp_path: Path, environ: dict[str, str]) -> None:
    auths = {
        "a.example": {"auth": _auth("u", ""), "identitytoken": "id"},
        "b.example": {"registrytoken": "ready"},
        "c.example": {"username": "u", "password": "p"},
        "d.example": {},
    }
    environ["DOCKER_CONFIG"] = str(tmp_path / "elsewhere")
    _write(tmp_path / "elsewhere" / "config.json", {"auths": auths})
    found = {host: await DockerLogins(host, environ).find(None) for host in auths}
    assert found == {
        "a.example": Credentials("u", identity_token="id"),
        "b.example": Credentials(bearer_token="ready"),
        "c.example": Credentials("u", "p"),
        "d.example": None,
    }


async def test_longest_namespace_of_auth_json_wins(tmp_path: Path, environ: dict[str, str]) -> None:
    auths = {
        "reg.example": {"auth": _auth("host", "p")},
        "reg.example/team": {"auth": _auth("team", "p")},
        "reg.example/team/app": {"auth": _auth("app", "p")},
    }
    _write(tmp_path / "run" / "containers" / "auth.json", {"auths": auths})
    logins = DockerLogins("reg.example", environ)
    names = [
        (await logins.find(name))
        for name in (None, "other", "team/x", "team/app", "team/app/y", "team/apple")
    ]
    assert [found.username if found else None for found in names] == [
        "host",
        "host",
        "team",
        "app",
        "app",
        "team",
    ]


async def test_environment_goes_before_files(tmp_path: Path, environ: dict[str, str]) -> None:
    _write(tmp_path / ".docker" / "config.json", {"auths": {"r.example": {"auth": _auth("docker", "p")}}})
    _write(
        tmp_path / ".config" / "containers" / "auth.json",
        {"auths": {"r.example": {"auth": _auth("podman", "p")}}},
    )
    assert await DockerLogins("r.example", environ).find(None) == Credentials("docker", "p")
    environ["REGISTRY_AUTH_FILE"] = str(tmp_path / "named.json")
    _write(tmp_path / "named.json", {"auths": {"r.example": {"auth": _auth("named", "p")}}})
    assert await DockerLogins("r.example", environ).find(None) == Credentials("named", "p")
    environ["DOCKER_AUTH_CONFIG"] = json.dumps({"auths": {"r.example": {"auth": _auth("env", "p")}}})
    assert await DockerLogins("r.example", environ).find(None) == Credentials("env", "p")


async def test_legacy_dockercfg_is_read(tmp_path: Path, environ: dict[str, str]) -> None:
    _write(tmp_path / ".dockercfg", {"https://r.example/v1/": {"auth": _auth("u", "p"), "email": "x"}})
    assert await DockerLogins("r.example", environ).find(None) == Credentials("u", "p")


async def test_hosts_own_helper_goes_before_the_store_and_the_file(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    _helper(tmp_path, "own", 'read host; echo "{\\"Username\\":\\"own\\",\\"Secret\\":\\"$host\\"}"')
    _helper(tmp_path, "store", 'echo "{\\"Username\\":\\"<token>\\",\\"Secret\\":\\"id\\"}"')
    config = {
        "auths": {"a.example": {"auth": _auth("file", "p")}},
        "credHelpers": {"a.example": "own"},
        "credsStore": "store",
    }
    _write(tmp_path / ".docker" / "config.json", config)
    assert await DockerLogins("a.example", environ).find("x") == Credentials("own", "a.example")
    assert await DockerLogins("b.example", environ).find("x") == Credentials(identity_token="id")


async def test_helper_is_asked_for_docker_hub_by_its_old_url(tmp_path: Path, environ: dict[str, str]) -> None:
    _helper(tmp_path, "s", 'read url; echo "{\\"Username\\":\\"u\\",\\"Secret\\":\\"$url\\"}"')
    _write(tmp_path / ".docker" / "config.json", {"credsStore": "s"})
    found = await DockerLogins("registry-1.docker.io", environ).find("library/x")
    assert found == Credentials("u", "https://index.docker.io/v1/")


async def test_helper_that_knows_nothing_leaves_what_the_file_says(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    _helper(tmp_path, "s", "echo 'credentials not found in native keychain'; exit 1")
    _write(
        tmp_path / ".docker" / "config.json",
        {"credsStore": "s", "auths": {"r.example": {"auth": _auth("u", "p")}}},
    )
    assert await DockerLogins("r.example", environ).find(None) == Credentials("u", "p")
    assert await DockerLogins("other.example", environ).find(None) is None


async def test_helper_is_asked_once_until_everything_is_forgotten(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    _helper(
        tmp_path, "s", f'echo x >> {tmp_path}/asked; echo "{{\\"Username\\":\\"u\\",\\"Secret\\":\\"p\\"}}"'
    )
    _write(tmp_path / ".docker" / "config.json", {"credsStore": "s"})
    logins = DockerLogins("r.example", environ)
    await logins.find("a")
    await logins.find("b")
    assert (tmp_path / "asked").read_text() == "x\n"
    logins.forget()
    await logins.find("a")
    assert (tmp_path / "asked").read_text() == "x\nx\n"


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ("echo s3cret; exit 3", "exit code 3"),
        ("echo s3cret", "is not credentials"),
        ("echo '[\"s3cret\"]'", "is not credentials"),
        ("echo s3cret; exec sleep 60", "no answer within"),
        ("head -c 200000 /dev/zero", "is not credentials"),
    ],
)
async def test_failing_helper_is_an_error_that_does_not_show_its_output(
    tmp_path: Path, environ: dict[str, str], script: str, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "sleep" in script:
        monkeypatch.setattr(credentials, "HELPER_SECONDS", 0.5)
    _helper(tmp_path, "bad", script)
    _write(tmp_path / ".docker" / "config.json", {"credsStore": "bad"})
    with pytest.raises(ConfigError) as caught:
        await DockerLogins("r.example", environ).find(None)
    assert complaint in str(caught.value)
    assert "docker-credential-bad" in str(caught.value)
    assert "s3cret" not in str(caught.value)


async def test_missing_helper_is_an_error_that_names_it(tmp_path: Path, environ: dict[str, str]) -> None:
    _write(tmp_path / ".docker" / "config.json", {"credsStore": "nowhere"})
    with pytest.raises(ConfigError, match=r"docker-credential-nowhere \(named by .*config\.json: "):
        await DockerLogins("r.example", environ).find(None)


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ('{"auths": {"r": {"auth": "s3cret"}', "not JSON at line 1"),
        ("[]", "expected a JSON object"),
        ({"auths": []}, None),
        ({"auths": ["s3cret"]}, "auths: expected an object"),
        ({"auths": {"r": "s3cret"}}, "auths.r: expected an object"),
        ({"auths": {"r": {"auth": "s3cret!"}}}, "auths.r: auth: expected base64"),
        ({"auths": {"r": {"auth": base64.b64encode(b"s3cret").decode()}}}, "auths.r: auth: expected base64"),
        ({"auths": {"r": {"password": 5}}}, "auths.r: password: expected a string"),
        ({"credHelpers": {"r": "../../bin/s3cret"}}, "credHelpers.r: expected the name"),
        ({"credsStore": 1}, "credsStore: expected the name"),
    ],
)
async def test_malformed_file_is_an_error_with_path_and_place_but_no_secret(
    tmp_path: Path, environ: dict[str, str], document: Any, complaint: str | None
) -> None:
    path = tmp_path / ".docker" / "config.json"
    _write(path, document)
    logins = DockerLogins("r", environ)
    if complaint is None:
        assert await logins.find(None) is None
        return
    with pytest.raises(ConfigError) as caught:
        await logins.find(None)
    assert str(caught.value).startswith(str(path))
    assert complaint in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_secrets_are_not_shown_by_repr() -> None:
    shown = repr(Credentials("user", "s3cret", "s3cret", "s3cret"))
    assert "user" in shown
    assert "s3cret" not in shown


def _packed(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


LONG = "p:äß-?" + "x" * 61
FORMS = {
    "lines of 76": lambda text: "\n".join(text[i : i + 76] for i in range(0, len(text), 76)) + "\n",
    "CRLF": lambda text: text[:20] + "\r\n" + text[20:],
    "without padding": lambda text: text.rstrip("="),
    "for URLs": lambda text: text.translate(str.maketrans("+/", "-_")),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
async def test_base64_is_read_however_it_is_written(
    tmp_path: Path, environ: dict[str, str], form: Callable[[str], str]
) -> None:
    _write(tmp_path / ".docker" / "config.json", {"auths": {"r": {"auth": form(_packed(f"robot$m:{LONG}"))}}})
    assert await DockerLogins("r", environ).find("a") == Credentials("robot$m", LONG)


OTHERS: dict[str, dict[str, Any]] = {
    "not base64": {"auths": {"other": {"auth": "%%%"}}},
    "without a colon": {"auths": {"other": {"auth": _packed("token")}}},
    "null": {"auths": {"other": None}},
    "a number": {"auths": {"other": 3}},
    "its helper is missing": {"credHelpers": {"other": "nowhere"}},
    "its helper is a number": {"credHelpers": {"other": 3}},
    "the store is missing": {"credsStore": "nowhere"},
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
async def test_what_is_wrong_elsewhere_in_the_file_does_no_harm(
    tmp_path: Path, environ: dict[str, str], other: dict[str, Any]
) -> None:
    auths = {**other.get("auths", {}), "r": {"auth": _auth("u", "p")}}
    _write(tmp_path / ".docker" / "config.json", {**other, "auths": auths})
    assert await DockerLogins("r", environ).find("a") == Credentials("u", "p")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
async def test_file_saved_on_windows_is_read(tmp_path: Path, environ: dict[str, str], encoding: str) -> None:
    path = tmp_path / ".docker" / "config.json"
    path.parent.mkdir()
    path.write_bytes(json.dumps({"auths": {"r": {"auth": _auth("u", "p")}}}).encode(encoding))
    assert await DockerLogins("r", environ).find("a") == Credentials("u", "p")
