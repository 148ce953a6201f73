"""Names of the config, for the completion of a shell. Never fails: what cannot be read completes nothing."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from replicator.cli.options import Invocation

if TYPE_CHECKING:
    from replicator.config.settings import Loaded


def complete_rule(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The rules of the config."""
    loaded = _loaded(context)
    return _items([] if loaded is None else [rule.name for rule in loaded.rules], incomplete)


def complete_site(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The sites of the config."""
    loaded = _loaded(context)
    return _items([] if loaded is None else loaded.sites, incomplete)


def complete_destination(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The sites that some rule copies to."""
    loaded = _loaded(context)
    rules = [] if loaded is None else loaded.rules
    return _items({name for rule in rules for name in rule.destinations}, incomplete)


def complete_repository(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The repositories that runs have seen at the sites that were named before, or at any."""
    named = {str(context.params[key]) for key in ("site", "here", "there") if context.params.get(key)}
    seen = _seen(context)
    return _items({name for site, name in seen if not named or site in named}, incomplete)


def complete_reference(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """SITE/REPOSITORY for what runs have seen."""
    return _items({f"{site}/{name}" for site, name in _seen(context)}, incomplete)


def complete_file(_context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Files, by the shell itself."""
    return [CompletionItem(incomplete, type="file")]


def complete_place(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The sites of the config; directories, by the shell itself, where none begins like that."""
    return complete_site(context, parameter, incomplete) or [CompletionItem(incomplete, type="dir")]


def _seen(context: click.Context) -> set[tuple[str, str]]:
    """Site and repository of everything that runs have seen."""
    loaded = _loaded(context)
    if loaded is None:
        return set()
    import asyncio  # noqa: PLC0415 - only where a repository is completed

    from replicator.flow.clock import SystemClock  # noqa: PLC0415
    from replicator.state.store import open_state  # noqa: PLC0415

    async def ask() -> set[tuple[str, str]]:
        state = await open_state(loaded.agent.state, clock=SystemClock(), read_only=True)
        try:
            found: set[tuple[str, str]] = set()
            for rule in loaded.rules:
                for unit in await state.units(rule.name):
                    found |= {(rule.source, unit.repository), (unit.destination, unit.target)}
            return found
        finally:
            await state.aclose()

    with contextlib.suppress(Exception):
        return asyncio.run(ask())
    return set()


def _loaded(context: click.Context) -> Loaded | None:
    from replicator.config.load import load  # noqa: PLC0415 - takes its time, and most completions need none

    invocation = context.find_root().obj
    config = invocation.config if isinstance(invocation, Invocation) else None
    with contextlib.suppress(Exception):
        return load(config, os.environ)
    return None


def _items(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]
