"""How tags are found in the index of images, which `images` writes.

Words of labels are found by SQLite's FTS5 and PostgreSQL's full text. Names of repositories and tags are matched as they are: of 100,000 that takes a few
hundredths of a second, and any part of a name can be searched for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Connection,
    LargeBinary,
    ScalarSelect,
    Select,
    Subquery,
    Table,
    and_,
    case,
    exists,
    false,
    func,
    literal,
    null,
    or_,
    select,
    type_coerce,
    union,
    union_all,
)

from replicator.model.digest import Digest
from replicator.ports.search import Holding, ImageFacts, Move, Query
from replicator.state.dialect import among, contains, described, matches, member, tokens
from replicator.state.reading import pieces
from replicator.state.tables import beliefs, image_layers, images, moves, names, pending, units

_MANY: Final = 20_000
"""Digests that a set is made of in a few hundredths of a second."""

_rule = names.alias("rule_name")
_destination = names.alias("destination_name")
_repository = names.alias("repository_name")
_named = names.alias("source_name")
_target = names.alias("target_name")


def search(connection: Connection, query: Query, limit: int) -> list[Holding]:
    """See `ports.search.ImageIndex`.

    First the names of the tags that match, then what every destination has of these: a destination whose tag does not
    match itself stands beside those whose tag does.
    """
    destinations, rules = _distinct(connection, beliefs.c.destination), _distinct(connection, pending.c.rule)
    others = _distinct(connection, pending.c.destination)
    matching = _matching_names(query, limit, destinations, _few_images(connection, query))
    found = select(*_BELIEVED).select_from(
        matching.join(
            beliefs,
            and_(
                beliefs.c.destination.in_(destinations),
                beliefs.c.repository == matching.c.repository,
                beliefs.c.tag == matching.c.tag,
            ),
        )
    )
    lacking = select(*_LACKING).select_from(
        matching.join(
            pending,
            and_(
                pending.c.rule.in_(rules),
                pending.c.destination.in_(others),
                pending.c.repository == matching.c.repository,
                pending.c.tag == matching.c.tag,
            ),
        )
    )
    rows = connection.execute(union_all(found, lacking)).all()
    name = _names(connection, {number for row in rows for number in row[:3]})
    sources = _sources(connection, {row[2] for row in rows}, name)
    holdings = [
        Holding(
            name[rule],
            name[destination],
            name[repository],
            tag,
            _digest(digest),
            _digest(source_digest),
            since,
            sources.get((rule, destination, name[repository]), ()),
            error,
            is_rewritten=digest is not None and source_digest is not None and digest != source_digest,
        )
        for rule, destination, repository, tag, digest, source_digest, since, error in rows
    ]
    return sorted(
        holdings, key=lambda each: (each.repository, each.tag, each.destination, each.digest is None)
    )


_BELIEVED: Final = (
    beliefs.c.rule,
    beliefs.c.destination,
    beliefs.c.repository,
    beliefs.c.tag,
    beliefs.c.digest,
    beliefs.c.source_digest,
    beliefs.c.checked_at,
    literal(""),
)
_LACKING: Final = (
    pending.c.rule,
    pending.c.destination,
    pending.c.repository,
    pending.c.tag,
    null(),
    pending.c.digest,
    pending.c.since,
    case((pending.c.hold != "", literal("held: ") + pending.c.hold), else_=pending.c.error),
)


def _few_images(connection: Connection, query: Query) -> list[int] | None:
    """The images that match what the query asks of images; None if it asks nothing of them, or many match.

    Where many do, looking at each tag's image beats making a set of them first: the tags that are wanted come soon.
    """
    if not query.needs_facts:
        return None
    some = select(images.c.id).where(*_image_conditions(query)).limit(_MANY + 1)
    found = list(connection.execute(some).scalars())
    return found if len(found) <= _MANY else None


def _matching_names(query: Query, limit: int, destinations: Sequence[int], few: list[int] | None) -> Subquery:
    """Repository and tag of what matches, the first `limit` by name. `few`: see `_few_images`."""
    parts = [_first_believed(query, limit, destinations[at:], few) for at in range(len(destinations))]
    lacking = select(pending.c.repository, _repository.c.name, pending.c.tag).join(
        _repository, _repository.c.id == pending.c.repository
    )
    parts.append(lacking.where(*_conditions(query, pending, few)).distinct())
    both = union(*(select(*part.subquery().c) for part in parts)).subquery()
    wanted = select(both.c.repository, both.c.tag).order_by(both.c.name, both.c.tag).limit(limit)
    return wanted.subquery()


def _first_believed(
    query: Query, limit: int, destinations: Sequence[int], few: list[int] | None
) -> Select[Any]:
    """What matches at the first of these destinations.

    Repositories in the order of their names, and of each the tags as the table's key has them: nothing is sorted, and the
    search ends with the last one that is wanted.
    """
    first, *others = destinations
    conditions = list(_conditions(query, beliefs, few))
    if query.behind:
        conditions.append(_is_behind(others))
    # An outer join, for SQLite never turns its order round; `coalesce`, for it makes an inner join of what it sees is one.
    by_name = _repository.outerjoin(
        beliefs,
        and_(beliefs.c.destination == first, beliefs.c.repository == _repository.c.id, *conditions),
    )
    return (
        select(beliefs.c.repository, _repository.c.name, beliefs.c.tag)
        .select_from(by_name)
        .where(func.coalesce(beliefs.c.tag, "") != "")
        .order_by(_repository.c.name, beliefs.c.tag)
        .limit(limit)
    )


def _is_behind(others: Sequence[int]) -> ColumnElement[bool]:
    """Whether the tag is not what one of these destinations has, as its source named it: an index may be rewritten."""
    other = beliefs.alias("other")
    return exists().where(
        other.c.destination.in_(others),
        other.c.repository == beliefs.c.repository,
        other.c.tag == beliefs.c.tag,
        other.c.source_digest != beliefs.c.source_digest,
    )


def _distinct(connection: Connection, column: ColumnElement[int]) -> list[int]:
    """The values of a column that an index begins with or that few rows have, each found by one step."""
    found: list[int] = []
    while (
        least := connection.execute(select(func.min(column)).where(column > (found or [-1])[-1])).scalar()
    ) is not None:
        found.append(least)
    return found


def read_facts(connection: Connection, digests: Sequence[Digest]) -> dict[Digest, ImageFacts]:
    """See `ports.search.ImageIndex`."""
    found: dict[Digest, ImageFacts] = {}
    for part in pieces(digests):
        rows = connection.execute(select(images).where(images.c.digest.in_(part))).all()
        layers: dict[int, list[tuple[Digest, int]]] = {}
        for number, layer, size in connection.execute(
            select(image_layers.c.image, image_layers.c.layer, image_layers.c.size).where(
                image_layers.c.image.in_([row.id for row in rows])
            )
        ):
            layers.setdefault(number, []).append((layer, size))
        for row in rows:
            found[row.digest] = ImageFacts(
                row.digest,
                row.created,
                row.artifact_type,
                tuple(row.platforms.split()),
                msgspec.json.decode(row.labels),
                tuple(sorted(layers.get(row.id, ()))),
                msgspec.json.decode(row.annotations),
            )
    return found


def read_moves(connection: Connection, destination: str, repository: str, tag: str) -> list[Move]:
    """See `ports.search.ImageIndex`."""
    rows = connection.execute(
        select(moves.c.digest, moves.c.at)
        .join(_destination, _destination.c.id == moves.c.destination)
        .join(_repository, _repository.c.id == moves.c.repository)
        .where(_destination.c.name == destination, _repository.c.name == repository, moves.c.tag == tag)
        .order_by(moves.c.at.desc())
    )
    return [Move(destination, repository, tag, digest, at) for digest, at in rows]


def read_unindexed(connection: Connection, limit: int) -> list[Holding]:
    """See `ports.search.ImageIndex`."""
    rows = connection.execute(
        select(
            _rule.c.name,
            _destination.c.name,
            _repository.c.name,
            beliefs.c.tag,
            beliefs.c.digest,
            beliefs.c.source_digest,
            beliefs.c.checked_at,
        )
        .join(_rule, _rule.c.id == beliefs.c.rule)
        .join(_destination, _destination.c.id == beliefs.c.destination)
        .join(_repository, _repository.c.id == beliefs.c.repository)
        .outerjoin(images, images.c.digest == beliefs.c.digest)
        .where(images.c.id.is_(None))
        .limit(limit)
    ).all()
    return [Holding(*row) for row in rows]


def _conditions(query: Query, table: Table, few: list[int] | None) -> Iterator[ColumnElement[bool]]:
    """What must hold of a row of `beliefs` or `pending`. Whatever is asked of names and images is one set for all rows."""
    repository, tag, digest = table.c.repository, table.c.tag, table.c.digest
    for word in query.words:
        yield or_(_named_so(word, repository, tag), digest.in_(_described_by(word)))
    if query.repository:
        yield repository.in_(_repositories(lambda name: matches(name, query.repository)))
    if query.tag:
        yield matches(tag, query.tag)
    if query.digest:
        yield _begins(digest, query.digest)
    if query.destination:
        of_rules = table.c.rule.in_(select(names.c.id).where(names.c.name.in_(query.rules)))
        yield or_(table.c.destination == _id_of(query.destination), of_rules)
    if query.missing_at:
        held, wanted = beliefs.alias("held"), table.c.source_digest if table is beliefs else digest
        there = _id_of(query.missing_at)
        if table is beliefs:
            yield table.c.destination != there  # what it holds itself, without a look-up
        yield ~exists().where(
            held.c.destination == there,
            held.c.repository == repository,
            held.c.tag == tag,
            held.c.source_digest == wanted,
        )
    if query.needs_facts:
        if few is None:
            yield exists().where(images.c.digest == digest, *_image_conditions(query))
        else:
            yield digest.in_(select(images.c.digest).where(among(images.c.id, few)))


def _named_so(word: str, repository: ColumnElement[Any], tag: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether REPOSITORY:TAG has this word in it; case does not count."""
    name, colon, version = word.lower().partition(":")
    if not colon:
        inside = repository.in_(_repositories(lambda each: contains(func.lower(each), name)))
        return or_(inside, contains(func.lower(tag), name))
    ends = _repositories(
        lambda each: func.substr(func.lower(each), func.length(each) - (len(name) - 1)) == name
    )
    begins = func.substr(func.lower(tag), 1, len(version)) == version
    return and_(repository.in_(ends), begins) if name else begins


def _repositories(condition: Callable[[ColumnElement[str]], ColumnElement[bool]]) -> CompoundSelect[Any]:
    """The numbers of repositories of such a name, or whose source repository has such a name."""
    leads = (
        select(_target.c.id)
        .join(units, units.c.target == _target.c.name)
        .join(_named, _named.c.id == units.c.repository)
        .where(condition(_named.c.name))
    )
    return union_all(select(names.c.id).where(condition(names.c.name)), leads)


def _id_of(name: str) -> ScalarSelect[Any]:
    return select(_named.c.id).where(_named.c.name == name).scalar_subquery()


def _image_conditions(query: Query) -> Iterator[ColumnElement[bool]]:
    if query.layer:
        with_layer = select(image_layers.c.image).where(_begins(image_layers.c.layer, query.layer))
        yield images.c.id.in_(with_layer)
    if query.platform:
        either = (matches(images.c.platforms, f"* {query.platform}{end}*") for end in " /")
        yield or_(*either)
    if query.artifact_type:
        yield matches(images.c.artifact_type, query.artifact_type)
    if query.before is not None:
        yield images.c.created < query.before
    if query.after is not None:
        yield images.c.created >= query.after
    for column, conditions in ((images.c.labels, query.labels), (images.c.annotations, query.annotations)):
        for key, value in conditions:
            shown = member(column, key)
            yield and_(shown.is_not(None), matches(shown, value)) if '"' not in key else false()


def _begins(digest: ColumnElement[Any], prefix: str) -> ColumnElement[bool]:
    """Whether a digest begins with these hexadecimal digits: a range of bytes, which an index can answer."""
    raw = type_coerce(digest, LargeBinary)
    low, high = bytes.fromhex(prefix.ljust(64, "0")[:128]), bytes.fromhex(prefix.ljust(128, "f"))
    return and_(raw >= low, raw <= high)


def _described_by(word: str) -> Select[Any]:
    """Digests of images with a label or annotation that has words beginning so."""
    beginnings = tokens(word)
    found = described(images.c.id, beginnings) if beginnings else false()
    return select(images.c.digest).where(found)


def _names(connection: Connection, numbers: Iterable[int]) -> dict[int, str]:
    return {
        number: name
        for part in pieces(numbers)
        for number, name in connection.execute(select(names.c.id, names.c.name).where(names.c.id.in_(part)))
    }


def _sources(
    connection: Connection, repositories: Iterable[int], name: Mapping[int, str]
) -> dict[tuple[int, int, str], tuple[str, ...]]:
    """The source repositories by rule, destination and the repository that they lead to."""
    found: dict[tuple[int, int, str], list[str]] = {}
    for part in pieces(repositories):
        rows = connection.execute(
            select(units.c.rule, units.c.destination, units.c.target, _repository.c.name)
            .join(_repository, _repository.c.id == units.c.repository)
            .where(units.c.target.in_([name[number] for number in part]))
        )
        for rule, destination, target, source in rows:
            found.setdefault((rule, destination, target), []).append(source)
    return {place: tuple(sorted(each)) for place, each in found.items()}


def _digest(value: object) -> Digest | None:
    """A digest of a union, whose columns have lost their types."""
    if value is None or isinstance(value, str):
        return None if value is None else Digest(value)
    raw = bytes(value)  # type: ignore[call-overload]
    return Digest(f"{'sha256' if len(raw) == 32 else 'sha512'}:{raw.hex()}")
