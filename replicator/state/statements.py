"""What is asked of the database and told to it, as SQLAlchemy statements built once."""

from __future__ import annotations

from typing import Final

from sqlalchemy import ScalarSelect, bindparam, delete, func, select, update
from sqlalchemy.dialects.sqlite import insert

from replicator.state.batch import REPOSITORIES_KEPT
from replicator.state.tables import (
    beliefs,
    created,
    listed,
    names,
    paused,
    pending,
    repositories,
    runs,
    standings,
    told,
    whereabouts,
)

RUNS_KEPT: Final = 100
"""Runs remembered per rule and destination."""


def _id(parameter: str) -> ScalarSelect[int]:
    return select(names.c.id).where(names.c.name == bindparam(parameter)).scalar_subquery()


# --- reading; parameters are names ---

BELIEFS: Final = (
    select(
        beliefs.c.tag,
        beliefs.c.digest,
        beliefs.c.source_digest,
        names.c.name,
        beliefs.c.checked_at,
        beliefs.c.asked_at,
    )
    .join(names, names.c.id == beliefs.c.rule)
    .where(beliefs.c.destination == _id("destination"), beliefs.c.repository == _id("repository"))
)
_PENDING_VALUES: Final = (
    "digest",
    "since",
    "attempts",
    "error",
    "reason",
    "not_before",
    "source",
    "asked_at",
)
PENDING: Final = select(pending.c.tag, *(pending.c[name] for name in _PENDING_VALUES)).where(
    pending.c.rule == _id("rule"),
    pending.c.destination == _id("destination"),
    pending.c.repository == _id("repository"),
)
PENDING_REPOSITORIES: Final = (
    select(names.c.name)
    .join(pending, pending.c.repository == names.c.id)
    .where(pending.c.rule == _id("rule"), pending.c.destination == _id("destination"))
    .distinct()
)
KNOWS_REPOSITORY: Final = select(repositories.c.site).where(
    repositories.c.site == _id("site"), repositories.c.repository == _id("repository")
)
WHEREABOUTS: Final = (
    select(whereabouts.c.digest, names.c.name, whereabouts.c.seen_at)
    .join(names, names.c.id == whereabouts.c.repository)
    .where(whereabouts.c.site == _id("site"), whereabouts.c.digest.in_(bindparam("digests", expanding=True)))
)
CREATED: Final = select(created.c.digest, created.c.at).where(
    created.c.digest.in_(bindparam("digests", expanding=True))
)
LISTED: Final = select(listed.c.tag, listed.c.digest, listed.c.version).where(
    listed.c.site == _id("site"), listed.c.repository == _id("repository")
)
_rule_name = names.alias("rule_name")
_destination_name = names.alias("destination_name")
STANDINGS: Final = (
    select(
        _rule_name.c.name,
        _destination_name.c.name,
        standings.c.first_seen,
        standings.c.last_look,
        standings.c.last_success,
        standings.c.in_step,
        standings.c.held,
        func.count(pending.c.tag),
        func.count(pending.c.tag).filter(pending.c.attempts > 0),
        func.min(pending.c.since),
        standings.c.last_error,
    )
    .join(_rule_name, _rule_name.c.id == standings.c.rule)
    .join(_destination_name, _destination_name.c.id == standings.c.destination)
    .outerjoin(
        pending, (pending.c.rule == standings.c.rule) & (pending.c.destination == standings.c.destination)
    )
    .group_by(standings.c.rule, standings.c.destination)
    .order_by(_rule_name.c.name, _destination_name.c.name)
)
"""In the order of `ports.Standing`'s fields."""
_repository_name = names.alias("repository_name")
BEHIND: Final = (
    select(
        _rule_name.c.name,
        _destination_name.c.name,
        _repository_name.c.name,
        func.count(pending.c.tag),
        func.count(pending.c.tag).filter(pending.c.attempts > 0),
        func.min(pending.c.since),
    )
    .join(_rule_name, _rule_name.c.id == pending.c.rule)
    .join(_destination_name, _destination_name.c.id == pending.c.destination)
    .join(_repository_name, _repository_name.c.id == pending.c.repository)
    .group_by(pending.c.rule, pending.c.destination, pending.c.repository)
)
"""In the order of `ports.BehindRepository`'s fields."""
STANDING: Final = STANDINGS.where(
    _rule_name.c.name == bindparam("rule"), _destination_name.c.name == bindparam("destination")
)
RUNS: Final = (
    select(
        runs.c.started_at,
        runs.c.ended_at,
        runs.c.outcome,
        runs.c.complete_look,
        runs.c.in_step,
        runs.c.held,
        runs.c.failed,
        runs.c.error,
        runs.c.narrowed,
    )
    .where(runs.c.rule == _id("rule"), runs.c.destination == _id("destination"))
    .order_by(runs.c.started_at.desc())
)
NAME_IDS: Final = select(names.c.name, names.c.id).where(names.c.name.in_(bindparam("names", expanding=True)))

PAUSED: Final = select(paused.c.rule)
TOLD: Final = select(told.c.receiver, told.c.rule, told.c.destination, told.c.condition)

# --- writing; parameters are numbers of names, but for the next four ---

PAUSE: Final = insert(paused).on_conflict_do_nothing()
RESUME: Final = delete(paused).where(paused.c.rule == bindparam("the_rule"))
TELL: Final = insert(told).on_conflict_do_nothing()
UNTELL: Final = delete(told).where(
    *(told.c[name] == bindparam(f"the_{name}") for name in ("receiver", "rule", "destination", "condition"))
)

INTERN: Final = insert(names).on_conflict_do_nothing()
KNOW_REPOSITORY: Final = insert(repositories).on_conflict_do_nothing()
BEGIN: Final = insert(standings).on_conflict_do_nothing()

_belief = insert(beliefs)
BELIEVE: Final = _belief.on_conflict_do_update(
    index_elements=["destination", "repository", "tag"],
    set_={
        name: _belief.excluded[name] for name in ("digest", "source_digest", "rule", "checked_at", "asked_at")
    },
)
_pend = insert(pending)
PEND: Final = _pend.on_conflict_do_update(
    index_elements=["rule", "destination", "repository", "tag"],
    set_={name: _pend.excluded[name] for name in _PENDING_VALUES if name != "since"}
    | {"since": func.min(pending.c.since, _pend.excluded.since)},
)
UNPEND: Final = delete(pending).where(
    *(pending.c[name] == bindparam(f"the_{name}") for name in ("rule", "destination", "repository", "tag"))
)
_see = insert(whereabouts)
SEE: Final = _see.on_conflict_do_update(
    index_elements=["site", "digest", "repository"], set_={"seen_at": _see.excluded.seen_at}
)
FORGET: Final = delete(whereabouts).where(
    *(whereabouts.c[name] == bindparam(f"the_{name}") for name in ("site", "digest", "repository"))
)
_other = whereabouts.alias("other")
TRIM_WHEREABOUTS: Final = delete(whereabouts).where(
    whereabouts.c.site == bindparam("the_site"),
    whereabouts.c.digest == bindparam("the_digest"),
    whereabouts.c.repository.not_in(
        select(_other.c.repository)
        .where(_other.c.site == bindparam("the_site"), _other.c.digest == bindparam("the_digest"))
        .order_by(_other.c.seen_at.desc())
        .limit(REPOSITORIES_KEPT)
    ),
)
_create = insert(created)
CREATE: Final = _create.on_conflict_do_update(index_elements=["digest"], set_={"at": _create.excluded.at})
_note = insert(listed)
NOTE: Final = _note.on_conflict_do_update(
    index_elements=["site", "repository", "tag"],
    set_={name: _note.excluded[name] for name in ("digest", "version")},
)
_run = insert(runs)
RUN: Final = _run.on_conflict_do_update(
    index_elements=["rule", "destination", "started_at"],
    set_={
        name: _run.excluded[name]
        for name in ("ended_at", "outcome", "complete_look", "in_step", "held", "failed", "error", "narrowed")
    },
)
_other_run = runs.alias("other_run")
TRIM_RUNS: Final = delete(runs).where(
    runs.c.rule == bindparam("the_rule"),
    runs.c.destination == bindparam("the_destination"),
    runs.c.started_at
    <= select(_other_run.c.started_at)
    .where(
        _other_run.c.rule == bindparam("the_rule"), _other_run.c.destination == bindparam("the_destination")
    )
    .order_by(_other_run.c.started_at.desc())
    .limit(1)
    .offset(RUNS_KEPT)
    .scalar_subquery(),
)
CLOSE: Final = (
    update(standings)
    .where(standings.c.rule == bindparam("the_rule"), standings.c.destination == bindparam("the_destination"))
    .values(
        {name: bindparam(name) for name in ("last_look", "last_success", "in_step", "held", "last_error")}
    )
)
