"""What an agent and its fleet do, beside what becomes of images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

WebhookOutcome = Literal[
    "matched", "unmatched", "ignored", "other_registry", "unauthorized", "too_large", "malformed", "busy"
]


class RunStuck(msgspec.Struct, frozen=True):
    """A run of a rule made no progress for too long and is being ended."""

    rule: str


class TakenOver(msgspec.Struct, frozen=True):
    """Work of an agent that was lost waits for another one. `shard` None: a look at the whole rule."""

    rule: str
    destinations: tuple[str, ...]
    shard: int | None


class SplitOff(msgspec.Struct, frozen=True):
    """A repository of these destinations has much to copy: it waits in the fleet's queue by itself."""

    rule: str
    destinations: tuple[str, ...]
    repository: str


class JobBegun(msgspec.Struct, frozen=True):
    """This agent begins a job of the fleet's queue that could have begun so many seconds ago."""

    waited: float


class FleetSeen(msgspec.Struct, frozen=True):
    """An agent has read how its fleet is.

    `agents`: how many live. `serving`: by destination of the config, how many of them take work for it. `jobs`: how many there
    are, by queue and status; None where another agent counts them.
    """

    agents: int
    serving: Mapping[str, int]
    jobs: Mapping[tuple[str, str], int] | None = None


class DatabaseSeen(msgspec.Struct, frozen=True):
    """Whether an agent of a fleet has its database, told with each heartbeat and for each that failed."""

    is_up: bool


class ConfigRead(msgspec.Struct, frozen=True):
    """An agent read its config, at start or on a reload; where that failed, the one before stays in force."""

    successful: bool
    at: float


class WebhookSeen(msgspec.Struct, frozen=True):
    """A webhook was refused, or one event in it was looked at.

    `matched` and `unmatched`: it made some rule look, or none. `ignored`: no change of a tag.
    `other_registry`: it names a registry other than the hook's site.
    """

    hook: str
    outcome: WebhookOutcome
