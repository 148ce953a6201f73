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


def complete_repository(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The repositories that runs have seen at the site that was named before, or at any."""
    loaded = _loaded(context)
    if loaded is None:
        return []
    import asyncio  # noqa: PLC0415 - only where a repository is completed

    from replicator.flow.clock import SystemClock  # noqa: PLC0415
    from replicator.state.store import open_state  # noqa: PLC0415

    site = context.params.get("site")

    async def seen() -> set[str]:
        state = await open_state(loaded.agent.state_path, clock=SystemClock(), read_only=True)
        try:
            names: set[str] = set()
            for rule in loaded.rules:
                for unit in await state.units(rule.name):
                    names |= {unit.repository} if site in {None, rule.source} else set()
                    names |= {unit.target} if site in {None, unit.destination} else set()
            return names
        finally:
            await state.aclose()

    with contextlib.suppress(Exception):
        return _items(asyncio.run(seen()), incomplete)
    return []


def _loaded(context: click.Context) -> Loaded | None:
    from replicator.config.load import load  # noqa: PLC0415 - takes its time, and most completions need none

    invocation = context.find_root().obj
    config = invocation.config if isinstance(invocation, Invocation) else None
    with contextlib.suppress(Exception):
        return load(config, os.environ)
    return None


def _items(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]
