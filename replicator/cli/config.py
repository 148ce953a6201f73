"""`replicator config`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click
from msgspec.structs import replace

from replicator.cli.names import complete_rule
from replicator.cli.options import Invocation, everywhere
from replicator.cli.output import print_json
from replicator.errors import ConfigError
from replicator.sites.registry.settings import RegistrySettings

if TYPE_CHECKING:
    from replicator.policy.rule import Rule


@click.group("config")
@everywhere
def command() -> None:
    """Print the JSON Schema or the effective config, or convert another tool's config."""


@command.command("schema")
@everywhere
def show_schema() -> int:
    """Print the JSON Schema of a config file, for editors and validators."""
    from replicator.config.schema import schema  # noqa: PLC0415 - pydantic only where it is needed

    print_json(schema())
    return 0


@command.command("show")
@everywhere
@click.pass_obj
def show_config(invocation: Invocation) -> int:
    """Print the effective config: files merged, defaults filled in, secrets masked."""
    from replicator.config.load import load  # noqa: PLC0415 - pydantic only where it is needed
    from replicator.config.show import show  # noqa: PLC0415 - see above

    loaded = load(invocation.config, os.environ)
    for text in loaded.warnings:
        click.echo(f"warning: {text}", err=True)
    if invocation.json:
        print_json(loaded.effective)
    else:
        click.echo(show(loaded), nl=False)
    return 0


@command.command("import")
@click.argument(
    "files", nargs=-1, required=True, metavar="FILE...", type=click.Path(allow_dash=True, path_type=Path)
)
@click.option(
    "--from",
    "tool",
    type=click.Choice(["regsync", "skopeo", "image-syncer", "dregsy", "ocync", "harbor"]),
    help="Tool that the config is for. Default: detected from its keys.",
)
@click.option(
    "--destination", metavar="HOST[/PATH]", help="Destination, which skopeo's file does not contain."
)
@click.option("--scoped", is_flag=True, help="Same as --scoped of skopeo sync.")
@click.option("--strict", is_flag=True, help="Exit 1 if a setting that matters has no equivalent.")
@everywhere
def import_command(
    files: tuple[Path, ...], tool: str | None, destination: str | None, *, scoped: bool, strict: bool
) -> int:
    """Print another tool's config as TOML.

    FILE is a config of regsync, skopeo sync, image-syncer (with its auth file as a second FILE), dregsy or ocync, or
    replication policies exported from Harbor's API; - is stdin. Settings without an equivalent are listed in a comment
    at the top and as warnings on stderr. Passwords are not converted.
    """
    from replicator.config.importers import TOOLS, Source, import_config, render  # noqa: PLC0415 - tomlkit and PyYAML

    sources = [Source(str(file), _read(file)) for file in files]
    known = next((each for each in TOOLS if each == tool), None)
    try:
        draft = import_config(sources, known, destination=destination, scoped=scoped)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    click.echo(render(draft, f"Imported from {', '.join(map(str, files))}."), nl=False)
    for text in draft.dropped:
        click.echo(f"warning: not converted: {text}", err=True)
    if not draft.rules:
        click.echo("warning: the config copies nothing", err=True)
    return 1 if strict and (draft.dropped or not draft.rules) else 0


@command.command("pull-policy")
@click.argument("rule", shell_complete=complete_rule)
@click.option(
    "--write",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write the files below this directory instead of printing them.",
)
@everywhere
@click.pass_obj
def pull_policy_command(invocation: Invocation, rule: str, *, folder: Path | None) -> int:
    """Print what pullers need to demand the signatures that a rule demands.

    For podman, CRI-O and skopeo: policy.json and a file for registries.d. For Kubernetes: ClusterImagePolicy documents for
    sigstore's policy-controller, and an ImageValidatingPolicy for Kyverno. stderr lists what they cannot demand. For a
    rule with image lists, the lists are read, and their repositories are named.
    """
    from replicator.cli.rules import named_rules  # noqa: PLC0415 - pydantic only where it is needed
    from replicator.config.load import load  # noqa: PLC0415 - with it
    from replicator.policy.enforcing import pull_policy  # noqa: PLC0415 - with it

    loaded = load(invocation.config, os.environ)
    rules = named_rules(loaded.rules, [rule], option="")
    if not rules[0].trust:
        raise ConfigError([f"{rule}: demands no signatures; add [[rule.trust]] to it"])
    places = {
        name: site.url.partition("://")[2]
        for name, site in loaded.sites.items()
        if isinstance(site, RegistrySettings)
    }
    destinations = [places[name] for name in rules[0].destinations if name in places]
    if not destinations:
        raise ConfigError([f"{rule}: no destination is a registry that pullers could ask"])
    named = [(_with_lists(each), places.get(each.source, "")) for each in rules]
    named = [(each, source) for each, source in named if each.repositories.include]
    if not named:
        raise ConfigError([f"{rule}: its image lists have no image of any of its sources"])
    found = pull_policy(rule, named, destinations)
    kubernetes = [*found.cluster_image_policies, found.image_validating_policy]
    files = {
        "policy.json": found.policy_json,
        f"registries.d/replicator-{rule}.yaml": found.registries_d,
        **{f"{each['kind'].lower()}/{each['metadata']['name']}.yaml": each for each in kubernetes},
    }
    for text in found.gaps:
        click.echo(f"warning: {text}", err=True)
    if folder is not None:
        _write(folder, files)
    elif invocation.json:
        print_json({"version": 1, "files": files, "gaps": found.gaps})
    else:
        for name, content in files.items():
            click.echo(f"# {name}\n{json.dumps(content, indent=2)}")
    return 0


def _with_lists(rule: Rule) -> Rule:
    """The rule with the repositories of its image lists by name."""
    if rule.images is None:
        return rule
    from replicator.policy.pattern import Glob  # noqa: PLC0415 - as above
    from replicator.policy.rule import RepositorySelection  # noqa: PLC0415 - as above

    images = rule.images.read()
    for problem in images.problems:
        click.echo(f"warning: {problem}", err=True)
    return replace(
        rule, repositories=RepositorySelection(tuple(map(Glob.parse, sorted(images.repositories))))
    )


def _write(folder: Path, files: Mapping[str, object]) -> None:
    """JSON is YAML, too."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + "\n")


def _read(file: Path) -> str:
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise click.UsageError(f"{file}: {cause}") from None
