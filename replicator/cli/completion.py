"""`replicator completion`."""

from __future__ import annotations

from typing import Final

import click
from click.shell_completion import BashComplete, FishComplete, ZshComplete

from replicator.cli.options import everywhere

_CLASSES: Final = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}


@click.command("completion")
@click.argument("shell", type=click.Choice(list(_CLASSES)))
@everywhere
@click.pass_context
def command(context: click.Context, shell: str) -> int:
    """Print the script that completes commands, options, and names of the config in a shell.

    Save it where the shell looks for completions, as /etc/bash_completion.d/replicator, a file _replicator in $fpath, or
    ~/.config/fish/completions/replicator.fish.
    """
    root = context.find_root().command
    click.echo(_CLASSES[shell](root, {}, "replicator", "_REPLICATOR_COMPLETE").source())
    return 0
