"""What is said about the config (schema, reference, example, `config show`) is what the model does."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from replicator.config.build import Loaded
from replicator.config.load import load
from replicator.config.model import AgentTable, RuleTable, SiteTable, Table, table_in
from replicator.config.reference import reference
from replicator.config.schema import schema
from replicator.config.show import show

ROOT = Path(__file__).parents[2]
ENVIRON = {"HUB_PASSWORD": "p", "NEAR_TOKEN": "n", "FRA_TOKEN": "f", "HOME": "/home/me"}
COMMENTED = {"site.tls.ca", "site.tls.cert", "site.tls.key"}
"""Keys that the example can only show in a comment, since they name files that must exist."""


def example() -> Loaded:
    return load(ROOT / "config.example.toml", ENVIRON)


def keys_of(model: type[Table], prefix: str) -> Iterator[str]:
    for key, info in model.model_fields.items():
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
    return {*keys_of(AgentTable, "agent"), *keys_of(SiteTable, "site"), *keys_of(RuleTable, "rule")}


def test_the_example_is_a_config_that_works() -> None:
    loaded = example()
    assert list(loaded.sites) == ["hub", "near", "fra"]
    assert [rule.name for rule in loaded.rules] == ["platform"]
    assert loaded.warnings == ()


def test_the_example_shows_every_key_of_the_model_and_no_other() -> None:
    text = (ROOT / "config.example.toml").read_text()
    tables = tomllib.loads(text)
    shown = {*keys_in(tables["agent"], "agent"), *keys_in(tables["rule"], "rule")}
    for site in tables["site"].values():
        shown |= set(keys_in(site, "site"))
    free = {f"site.{key}.env" for key in ("password", "identity_token", "bearer_token")} | {
        "site.capabilities.mount"
    }
    assert shown - free == model_keys() - COMMENTED
    for key in COMMENTED:
        assert f"#   {key.rpartition('.')[2]:4} = " in text


def test_the_reference_is_up_to_date() -> None:
    written = (ROOT / "docs" / "configuration.md").read_text()
    assert written == reference(), "run: python -m replicator.config.reference > docs/configuration.md"


def test_every_key_says_what_it_means() -> None:
    for model in (AgentTable, SiteTable, RuleTable):
        for key, info in model.model_fields.items():
            assert info.description, key


def test_the_example_of_the_reference_works(tmp_path: Path) -> None:
    text = reference().split("```toml\n")[1].split("```")[0]
    (tmp_path / "hub.password").write_text("p")
    file = tmp_path / "replicator.toml"
    file.write_text(text.replace("/etc/replicator", str(tmp_path)))
    assert len(load(file, ENVIRON).rules) == 1


def test_what_is_shown_loads_again_to_the_same(tmp_path: Path) -> None:
    loaded = example()
    file = tmp_path / "replicator.toml"
    file.write_text(show(loaded))
    again = load(file, ENVIRON)
    assert show(again) == show(loaded)
    assert again.rules == loaded.rules
    assert again.agent == loaded.agent
    assert again.sites["hub"].limits == loaded.sites["hub"].limits


def test_show_fills_in_defaults_and_keeps_literal_dollars(tmp_path: Path) -> None:
    file = tmp_path / "replicator.toml"
    file.write_text('[site.a]\nurl = "https://a.example.com"\nusername = "$${X}"\npassword = { env = "P" }\n')
    shown = tomllib.loads(show(load(file, {"HOME": "/home/me", "P": "p"})))
    assert shown["agent"]["state"] == "sqlite:////home/me/.local/state/replicator/state.db"
    assert shown["agent"]["cache"] == {"max_bytes": "20GB", "path": "/home/me/.cache/replicator"}
    assert shown["site"]["a"]["username"] == "$${X}"
    assert shown["site"]["a"]["limits"] == {"concurrency": 32}
    assert "rule" not in shown


def test_the_schema_knows_every_key_and_no_null() -> None:
    document = schema()
    assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    properties = {f"{name}.{key}" for name, table in document["$defs"].items() for key in table["properties"]}
    models: list[type[Table]] = [AgentTable, SiteTable, RuleTable]
    for model in models:
        inner = (table_in(info.annotation) for info in model.model_fields.values())
        models.extend(table for table in inner if table is not None and table not in models)
    assert properties == {f"{model.__name__}.{key}" for model in models for key in model.model_fields}
    assert "null" not in str(document)
    assert all(table["additionalProperties"] is False for table in document["$defs"].values())


def test_config_brings_in_no_heavy_module() -> None:
    code = (
        "import sys, replicator.config.load\n"
        "print([m for m in ('aiohttp', 'sqlalchemy', 'tomlkit', 'rich', 'click', 'asyncio') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=dict(os.environ),
    )
    assert done.stdout.strip() == "[]"
