"""A first config, and what it says of credentials."""

import pytest

from replicator.config.starter import Answers, credentials_hint, first_config

ECR = "https://123456789012.dkr.ecr.eu-central-1.amazonaws.com"


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("https://registry.example.com:5000", "docker login registry.example.com:5000, or set username"),
        ("https://quay.io", "docker login quay.io, or set username"),
        (ECR, "set auth of the site (docs/registries/ecr.md)"),
        ("https://mine.azurecr.io", "set auth of the site (docs/registries/acr.md)"),
        ("https://europe-docker.pkg.dev", "set auth of the site (docs/registries/google.md)"),
    ],
)
def test_credentials_are_those_of_docker_or_of_the_cloud(url: str, hint: str) -> None:
    assert hint in credentials_hint(url)
    assert ("docker login" in credentials_hint(url)) == ("docker login" in hint)


def test_config_names_the_cloud_identity_instead_of_a_login() -> None:
    text = first_config(Answers(ECR, ("https://registry.example.com",), ("**",), "5m"))
    ecr, other = text.split("[site.")[1:3]
    assert "see `auth` on that page" in ecr
    assert "docker login" not in ecr
    assert "docker login registry.example.com" in other
