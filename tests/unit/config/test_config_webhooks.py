"""What a webhook's kind spares in the config."""

from __future__ import annotations

from pathlib import Path

import pytest

from replicator.config.load import load
from replicator.config.settings import WebhookSettings

RULE = """
[site.hub]
url = "https://hub.example.com"
[site.fra]
url = "https://fra.example.com"
[[rule]]
name = "platform"
source = "hub"
destinations = ["fra"]
repositories = ["platform/**"]
"""


def hook(tmp_path: Path, text: str) -> WebhookSettings:
    path = tmp_path / "replicator.toml"
    path.write_text(f"{RULE}[webhook.x]\nsite = 'hub'\n{text}\n")
    return load(path, {"HOME": str(tmp_path)}).webhooks["x"]


@pytest.mark.parametrize(
    ("kind", "header", "algorithm"),
    [
        ("ghcr", "X-Hub-Signature-256", "sha256"),
        ("artifactory", "X-JFrog-Event-Auth", "sha256"),
        ("gitea", "X-Gitea-Signature", "sha256"),
        ("nexus", "X-Nexus-Webhook-Signature", "sha1"),
    ],
)
def test_kind_knows_how_its_sender_signs(tmp_path: Path, kind: str, header: str, algorithm: str) -> None:
    found = hook(tmp_path, f"kind = '{kind}'\nhmac = {{ secret = 's' }}").hmac
    assert found is not None
    assert (found.header, found.algorithm, found.secret()) == (header, algorithm, "s")
    other = hook(
        tmp_path, f"kind = '{kind}'\nhmac = {{ secret = 's', header = 'X-Own', algorithm = 'sha1' }}"
    ).hmac
    assert other is not None
    assert (other.header, other.algorithm) == ("X-Own", "sha1")


@pytest.mark.parametrize(
    ("kind", "name"), [("gitlab", "X-Gitlab-Token"), ("artifactory", "X-JFrog-Event-Auth")]
)
def test_kind_knows_the_header_of_its_senders_secret(tmp_path: Path, kind: str, name: str) -> None:
    found = hook(tmp_path, f"kind = '{kind}'\nheader = {{ value = 's' }}").header
    assert found is not None
    assert (found.name, found.value()) == (name, "s")


def test_hash_is_sha256_without_a_kind(tmp_path: Path) -> None:
    found = hook(tmp_path, "hmac = { header = 'X-Own', secret = 's' }\nhosts = ['Reg.Example:5000']")
    assert found.hmac is not None
    assert found.hmac.algorithm == "sha256"
    assert found.hosts == {"reg.example:5000"}


def test_google_is_the_issuer_unless_another_is_named(tmp_path: Path) -> None:
    found = hook(tmp_path, "oidc = { audience = 'https://a', email = 'p@x' }").oidc
    assert found is not None
    assert (found.issuer, found.keys) == (
        "https://accounts.google.com",
        "https://www.googleapis.com/oauth2/v3/certs",
    )
    (tmp_path / "certs.json").write_text("{}")
    local = hook(tmp_path, "oidc = { audience = 'https://a', email = 'p@x', keys_file = 'certs.json' }").oidc
    assert local is not None
    assert local.keys == tmp_path / "certs.json"
