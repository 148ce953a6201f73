"""What is said about the config (schema, reference, example, `config show`) is what the model does."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import re
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from replicator.config import model as tables
from replicator.config.load import load
from replicator.config.model import Table, table_in
from replicator.config.schema import schema
from replicator.config.settings import Loaded
from replicator.config.show import show
from replicator.sites.objects.settings import S3Settings
from replicator.sites.open import SiteSettings
from replicator.sites.registry.settings import RegistrySettings
from scripts.reference import reference
from tests.fakes.modules import loaded_by

ROOT = Path(__file__).parents[3]
ENVIRON = {
    "ACR_CLIENT_SECRET": "c",
    "AGENT_TOKEN": "a",
    "GITHUB_APP_KEY": "g",
    "GITLAB_TOKEN": "g",
    "BUCKET_KEY": "k",
    "BUCKET_SECRET": "b",
    "BUCKET_TOKEN": "t",
    "CHAT_URL": "https://chat.example.com/secret",
    "CATALOG_TOKEN": "secret",
    "PAGER_KEY": "secret",
    "FRA_TOKEN": "f",
    "HOME": "/home/me",
    "HOOK_KEY": "k",
    "HOOK_SECRET": "s",
    "HOOK_TOKEN": "t",
    "HOOK_URL_TOKEN": "u",
    "HUB_PASSWORD": "p",
    "NEAR_TOKEN": "n",
}
COMMENTED = {
    "agent.state_password",
    "site.tls.ca",
    "site.tls.cert",
    "site.tls.key",
    "site.auth.assertion_file",
    "site.auth.key_file",
    "site.create.lifecycle",
    "site.create.policy",
    "rule.sign",
    "rule.platforms",
    "rule.platform_mode",
    "rule.missing_platform",
    "rule.sign.key",
    "rule.sign.statement",
    "rule.trust",
    "rule.trust.name",
    "rule.trust.keys",
    "rule.trust.keyless",
    "rule.trust.keyless.issuer",
    "rule.trust.keyless.identity",
    "rule.trust.trusted_root",
    "rule.trust.min",
    "rule.trust.annotations",
    "rule.trust.identity",
    "rule.trust.attestations",
    "rule.trust.attestations.predicate",
    "http.tls",
    "http.tls.cert",
    "http.tls.key",
    "webhook.oidc.keys_file",
}
"""Keys that the example can only show in a comment, since they name files that must exist."""


RANCHER = [f"rancher@{site}" for site in ("hub", "near", "ecr", "acr", "gar", "harbor", "ghcr")]
SECTIONS: dict[str, type[Table]] = {
    "agent": tables.AgentTable,
    "http": tables.HTTPTable,
    "fleet": tables.FleetTable,
    "site": tables.SiteTable,
    "rule": tables.RuleTable,
    "webhook": tables.WebhookTable,
    "notify": tables.NotifyTable,
}


def example() -> Loaded:
    return load(ROOT / "config.example.toml", ENVIRON)


def keys_of(model: type[Table], prefix: str) -> Iterator[str]:
    for key, info in tables.keys_of(model).items():
        yield f"{prefix}.{key}"
        if (inner := table_in(info.annotation)) is not None:
            yield from keys_of(inner, f"{prefix}.{key}")


def keys_in(value: Any, prefix: str) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from keys_in(item, prefix)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield f"{prefix}.{key}"
            yield from keys_in(item, f"{prefix}.{key}")


def model_keys() -> set[str]:
    return {key for name, model in SECTIONS.items() for key in keys_of(model, name)}


def tables_of(model: type[Table]) -> Iterator[type[Table]]:
    yield model
    for info in tables.keys_of(model).values():
        if (inner := table_in(info.annotation)) is not None:
            yield from tables_of(inner)


def test_the_reference_has_a_section_for_every_table() -> None:
    text = reference()
    missing = {
        table.__name__
        for section in SECTIONS.values()
        for table in tables_of(section)
        if not all(f"\n| `{key}` | " in text for key in tables.keys_of(table))
        or f"\n{inspect.getdoc(table)}\n" not in text
    }
    assert missing == set()


def test_the_example_is_a_config_that_works() -> None:
    loaded = example()
    assert list(loaded.sites) == [
        "hub",
        "near",
        "fra",
        "ecr",
        "acr",
        "gar",
        "harbor",
        "gitlab",
        "ghcr",
        "bucket",
        "archive",
        "shelf",
    ]
    assert [rule.name for rule in loaded.rules] == ["platform", "nightly", *RANCHER]
    assert loaded.warnings == ()


def test_the_example_shows_every_key_of_the_model_and_no_other() -> None:
    text = (ROOT / "config.example.toml").read_text()
    written = tomllib.loads(text)
    shown = {key for name in ("agent", "http", "fleet", "rule") for key in keys_in(written[name], name)}
    for name in ("site", "webhook", "notify"):
        shown |= {key for table in written[name].values() for key in keys_in(table, name)}
    places = {key for key in shown if key.endswith(".env") and key not in model_keys()}  # where a secret is
    variables = {key for key in shown if ".env." in key}  # named by the user
    shown -= places | variables
    assert shown - {"site.capabilities.mount", "site.create.tags.team"} == model_keys() - COMMENTED
    for key in COMMENTED:
        assert re.search(rf"^#   .*\b{key.rpartition('.')[2]} *= ", text, re.MULTILINE)


def test_the_reference_is_up_to_date() -> None:
    written = (ROOT / "docs" / "configuration.md").read_text()
    assert written == reference(), "run: python -m scripts.reference > docs/configuration.md"


def test_every_key_says_what_it_means() -> None:
    for model in SECTIONS.values():
        for key, info in model.model_fields.items():
            assert info.description, key


def test_the_example_of_the_reference_works(tmp_path: Path) -> None:
    text = reference().split("```toml\n")[1].split("```")[0]
    (tmp_path / "hub.password").write_text("p")
    file = tmp_path / "replicator.toml"
    file.write_text(text.replace("/etc/replicator", str(tmp_path)))
    assert len(load(file, ENVIRON).rules) == 1


def without_secrets(site: SiteSettings) -> SiteSettings:
    """The settings, as secrets are only the same by what they read."""
    if isinstance(site, RegistrySettings):
        return dataclasses.replace(site, login=None)
    store = site.store
    return replace(site, store=replace(store, keys=None) if isinstance(store, S3Settings) else store)


def test_what_is_shown_loads_again_to_the_same(tmp_path: Path) -> None:
    loaded = example()
    file = tmp_path / "replicator.toml"
    file.write_text(show(loaded))
    again = load(file, ENVIRON)
    assert show(again) == show(loaded)
    assert again.rules == loaded.rules
    assert again.agent == loaded.agent
    for name, site in loaded.sites.items():
        assert without_secrets(again.sites[name]) == without_secrets(site)
    assert again.bandwidth == loaded.bandwidth
    assert (again.commands, again.notify.keys()) == (loaded.commands, loaded.notify.keys())


def test_show_fills_in_defaults_and_keeps_literal_dollars(tmp_path: Path) -> None:
    file = tmp_path / "replicator.toml"
    file.write_text('[site.a]\nurl = "https://a.example.com"\nusername = "$${X}"\npassword = { env = "P" }\n')
    shown = tomllib.loads(show(load(file, {"HOME": "/home/me", "P": "p"})))
    assert shown["agent"]["state"] == "sqlite:////home/me/.local/state/replicator/state.db"
    assert shown["agent"]["cache"] == {"max_bytes": "20GB", "path": "/home/me/.cache/replicator"}
    assert shown["site"]["a"]["username"] == "$${X}"
    assert shown["site"]["a"]["limits"] == {"concurrency": 128}
    assert "rule" not in shown


def test_the_schema_knows_every_key_and_no_null() -> None:
    document = schema()
    assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    properties = {f"{name}.{key}" for name, table in document["$defs"].items() for key in table["properties"]}
    models = list(SECTIONS.values())
    for model in models:
        inner = (table_in(info.annotation) for info in model.model_fields.values())
        models.extend(table for table in inner if table is not None and table not in models)
    assert properties == {f"{model.__name__}.{key}" for model in models for key in tables.keys_of(model)}
    assert "null" not in str(document)
    assert all(table["additionalProperties"] is False for table in document["$defs"].values())


@pytest.mark.parametrize(
    "path", sorted((ROOT / "replicator/config/model").glob("*.py")), ids=lambda path: path.name
)
def test_no_description_runs_two_words_together(path: Path) -> None:
    """Where it is written as several strings, the space between two of them is easily forgotten."""
    with path.open("rb") as source:
        tokens = [one for one in tokenize.tokenize(source.readline) if one.type != tokenize.NL]
    joined = [
        (first.start[0], first.string, second.string)
        for first, second in itertools.pairwise(tokens)
        if first.type == second.type == tokenize.STRING
        and re.search(r"\S.$", first.string)
        and re.match(r".\S", second.string)
    ]
    assert joined == []


def test_config_brings_in_no_heavy_module() -> None:
    loaded = loaded_by("import replicator.config.load")
    assert "pydantic" in loaded
    assert loaded.isdisjoint({"aiohttp", "sqlalchemy", "tomlkit", "rich", "click", "asyncio"})
