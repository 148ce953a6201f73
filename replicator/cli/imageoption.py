"""`--images FILE` of sync, plan and export: images from lists instead of what the rules select."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
import msgspec

from replicator.cli.names import complete_file
from replicator.config.imagelist import narrowed
from replicator.config.settings import Loaded
from replicator.errors import ConfigError
from replicator.policy.rule import Rule

if TYPE_CHECKING:
    from replicator.engine.context import RunScope

images_option = click.option(
    "--images",
    metavar="FILE",
    multiple=True,
    shell_complete=complete_file,
    help="Take the images that this list names instead of what the rules select; repeatable. See `replicator images`.",
)


class Listed(msgspec.Struct, frozen=True):
    """The rules to run. `scope` keeps the run from counting as one of everything that they select."""

    rules: list[Rule]
    scope: RunScope | None = None
    has_problems: bool = False


def take_images(loaded: Loaded, rules: list[Rule], files: Sequence[str]) -> Listed:
    """The rules with the images of the lists; as they are where none is given. Prints each problem to stderr.

    Raises:
        ConfigError: no chosen rule has an image of the lists at its source.
    """
    if not files:
        return Listed(rules)
    chosen, problems = narrowed(rules, files, loaded.sites)
    for problem in problems:
        click.echo(f"error: {problem}", err=True)
    if not chosen:
        raise ConfigError(["--images: no chosen rule has an image of the lists at its source"])
    from replicator.engine.context import RunScope  # noqa: PLC0415 - commands send their first requests before

    repositories: dict[str, frozenset[str] | None] = {}
    for rule in chosen:
        if rule.images is not None:
            repositories |= dict.fromkeys(rule.images.read().repositories)
    return Listed(chosen, RunScope(repositories), bool(problems))
