"""The index of images: what is written of them, and how tags are found.

Labels are found by SQLite's FTS5. Names of repositories and tags are matched as they are: of 100,000 that takes a few
hundredths of a second, and any part of a name can be searched for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    LargeBinary,
    Select,
    and_,
    delete,
    exists,
    func,
    insert,
    literal,
    null,
    or_,
    select,
    text,
    type_coerce,
    union_all,
)

from replicator.model.digest import Digest, encoded
from replicator.ports.search import MAX_TEXT, Holding, ImageFacts, Move, Query
from replicator.state.reading import pieces
from replicator.state.tables import beliefs, image_layers, images, moves, names, pending, units

MOVES_KEPT: Final = 20
"""Of one tag."""
CREATE_TEXT: Final = "CREATE VIRTUAL TABLE image_text USING fts5(text, content='', tokenize='unicode61')"
"""Contentless: it finds rows of `images`, and keeps no second copy of their labels."""

_WORD: Final = re.compile(r"\w+")
# Bound as bytes, without the digests' type: eight layers an image make this the longest of all writes.
_NEW_LAYER: Final = text(
    "INSERT INTO image_layers (layer, image, size) VALUES (:layer, :image, :size) ON CONFLICT DO NOTHING"
)

NOTE_MOVE: Final = text(
    "INSERT INTO moves (destination, repository, tag, at, digest) "
    "SELECT :destination, :repository, :tag, :at, :digest WHERE NOT EXISTS ("
    "SELECT 1 FROM beliefs WHERE destination = :destination AND repository = :repository AND tag = :tag "
    "AND digest = :digest) ON CONFLICT DO NOTHING"
)
TRIM_MOVES: Final = text(
    "DELETE FROM moves WHERE destination = :destination AND repository = :repository AND tag = :tag AND at < ("
    "SELECT at FROM moves WHERE destination = :destination AND repository = :repository AND tag = :tag "
    "ORDER BY at DESC LIMIT 1 OFFSET :kept)"
)


# --- writing ---


def write_images(connection: Connection, seen: Iterable[ImageFacts]) -> None:
    """Writes what was seen of images; one that is known stays as it is, for an image never changes."""
    for part in pieces(seen):
        by_digest = {facts.digest: facts for facts in part}
        known = connection.execute(select(images.c.digest).where(images.c.digest.in_(by_digest))).scalars()
        for digest in known:
            del by_digest[digest]
        if by_digest:
            connection.execute(insert(images), [_image_row(facts) for facts in by_digest.values()])
            _write_details(connection, by_digest)


def _image_row(facts: ImageFacts) -> dict[str, Any]:
    return {
        "digest": facts.digest,
        "created": facts.created,
        "artifact_type": facts.artifact_type,
        "platforms": f" {' '.join(facts.platforms)} ",
        "labels": msgspec.json.encode(_bounded(facts.labels)).decode(),
        "size": facts.size,
    }


def _write_details(connection: Connection, new: Mapping[Digest, ImageFacts]) -> None:
    """Layers and words of images that were just inserted."""
    layers, texts = [], []
    rows = connection.execute(select(images.c.id, images.c.digest).where(images.c.digest.in_(new)))
    for number, digest in rows:
        facts = new[digest]
        layers += [
            {"layer": bytes.fromhex(encoded(layer)), "image": number, "size": size}
            for layer, size in facts.layers
        ]
        if words := _words(_bounded(facts.labels)):
            texts.append({"id": number, "text": words})
    if layers:
        connection.execute(_NEW_LAYER, layers)
    if texts:
        connection.execute(text("INSERT INTO image_text (rowid, text) VALUES (:id, :text)"), texts)


def _words(labels: Mapping[str, str]) -> str:
    return " ".join(labels.values()).strip()


def drop_unused(connection: Connection) -> None:
    """Throws away what is known of images that no tag names any more."""
    unused = ~exists().where(beliefs.c.digest == images.c.digest)
    gone = [row[0] for row in connection.execute(select(images.c.id).where(unused))]
    for number in gone:
        labels = connection.execute(select(images.c.labels).where(images.c.id == number)).scalar_one()
        if words := _words(msgspec.json.decode(labels)):
            connection.execute(
                text("INSERT INTO image_text (image_text, rowid, text) VALUES ('delete', :id, :text)"),
                {"id": number, "text": words},
            )
        connection.execute(delete(image_layers).where(image_layers.c.image == number))
        connection.execute(delete(images).where(images.c.id == number))


def _bounded(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels as far as `MAX_TEXT` goes, descriptions before the rest."""
    kept: dict[str, str] = {}
    left = MAX_TEXT
    for key in sorted(
        labels, key=lambda key: (not key.endswith(("description", "title", "source", "version")), key)
    ):
        if len(key) >= left:
            break
        kept[key] = labels[key][: left - len(key)]
        left -= len(key) + len(kept[key])
    return kept


# --- reading ---

_rule = names.alias("rule_name")
_destination = names.alias("destination_name")
_repository = names.alias("repository_name")
_named = names.alias("source_name")


def _tags() -> Select[Any]:
    """Every tag that is believed in, with its image where one is known."""
    return (
        select(
            _rule.c.name.label("rule"),
            _destination.c.name.label("destination"),
            _repository.c.name.label("repository"),
            beliefs.c.tag.label("tag"),
            beliefs.c.digest.label("digest"),
            beliefs.c.source_digest.label("source_digest"),
            beliefs.c.checked_at.label("since"),
            literal("").label("error"),
        )
        .join(_rule, _rule.c.id == beliefs.c.rule)
        .join(_destination, _destination.c.id == beliefs.c.destination)
        .join(_repository, _repository.c.id == beliefs.c.repository)
        .outerjoin(images, images.c.digest == beliefs.c.digest)
    )


def _lacking() -> Select[Any]:
    """Every tag that a destination lacks, or has with another digest."""
    return (
        select(
            _rule.c.name,
            _destination.c.name,
            _repository.c.name,
            pending.c.tag,
            null(),
            pending.c.digest,
            pending.c.since,
            pending.c.error,
        )
        .join(_rule, _rule.c.id == pending.c.rule)
        .join(_destination, _destination.c.id == pending.c.destination)
        .join(_repository, _repository.c.id == pending.c.repository)
        .outerjoin(images, images.c.digest == pending.c.digest)
    )


def search(connection: Connection, query: Query, limit: int) -> list[Holding]:
    """See `ports.search.ImageIndex`."""
    found = _tags().where(*_conditions(query, beliefs.c.tag, beliefs.c.digest))
    lacking = _lacking().where(*_conditions(query, pending.c.tag, pending.c.digest))
    both = union_all(found, lacking).order_by(text("3, 4, 2")).limit(limit)
    rows = connection.execute(both).all()
    sources = _sources(connection, {(row[0], row[1], row[2]) for row in rows})
    return [
        Holding(
            rule,
            destination,
            repository,
            tag,
            _digest(digest),
            _digest(source_digest),
            since,
            sources.get((rule, destination, repository), ()),
            error,
        )
        for rule, destination, repository, tag, digest, source_digest, since, error in rows
    ]


def read_facts(connection: Connection, digests: Sequence[Digest]) -> dict[Digest, ImageFacts]:
    """See `ports.search.ImageIndex`."""
    rows = connection.execute(select(images).where(images.c.digest.in_(digests))).all()
    layers: dict[int, list[tuple[Digest, int]]] = {}
    wanted = [row.id for row in rows]
    for number, layer, size in connection.execute(
        select(image_layers.c.image, image_layers.c.layer, image_layers.c.size).where(
            image_layers.c.image.in_(wanted)
        )
    ):
        layers.setdefault(number, []).append((layer, size))
    return {
        row.digest: ImageFacts(
            row.digest,
            row.created,
            row.artifact_type,
            tuple(row.platforms.split()),
            msgspec.json.decode(row.labels),
            tuple(sorted(layers.get(row.id, ()))),
        )
        for row in rows
    }


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
    rows = connection.execute(_tags().where(images.c.id.is_(None)).limit(limit)).all()
    return [Holding(*row[:7]) for row in rows]


def _conditions(
    query: Query, tag: ColumnElement[Any], digest: ColumnElement[Any]
) -> Iterator[ColumnElement[bool]]:
    for word in query.words:
        lower = word.lower()
        yield or_(
            func.instr(func.lower(_repository.c.name), lower) > 0,
            _repository.c.name.in_(_targets(func.instr(func.lower(_named.c.name), lower) > 0)),
            func.instr(func.lower(tag), lower) > 0,
            images.c.id.in_(_matching(word)),
        )
    if query.repository:
        yield or_(
            _repository.c.name.op("GLOB")(query.repository),
            _repository.c.name.in_(_targets(_named.c.name.op("GLOB")(query.repository))),
        )
    if query.tag:
        yield tag.op("GLOB")(query.tag)
    if query.digest:
        yield _begins(digest, query.digest)
    if query.destination:
        yield _destination.c.name == query.destination
    if query.needs_facts:
        yield from _image_conditions(query)


def _image_conditions(query: Query) -> Iterator[ColumnElement[bool]]:
    if query.layer:
        with_layer = select(image_layers.c.image).where(_begins(image_layers.c.layer, query.layer))
        yield images.c.id.in_(with_layer)
    if query.platform:
        yield images.c.platforms.op("GLOB")(f"* {query.platform}[ /]*")
    if query.artifact_type:
        yield images.c.artifact_type.op("GLOB")(query.artifact_type)
    for key, value in query.labels:
        shown = func.json_extract(images.c.labels, f'$."{key}"')
        yield and_(shown.is_not(None), shown.op("GLOB")(value))
    if query.before is not None:
        yield images.c.created < query.before
    if query.after is not None:
        yield images.c.created >= query.after


def _begins(digest: ColumnElement[Any], prefix: str) -> ColumnElement[bool]:
    """Whether a digest begins with these hexadecimal digits: a range of bytes, which an index can answer."""
    raw = type_coerce(digest, LargeBinary)
    low, high = bytes.fromhex(prefix.ljust(64, "0")[:128]), bytes.fromhex(prefix.ljust(128, "f"))
    return and_(raw >= low, raw <= high)


def _targets(condition: ColumnElement[bool]) -> Select[Any]:
    """The repositories of destinations that source repositories of such names lead to."""
    return select(units.c.target).join(_named, _named.c.id == units.c.repository).where(condition)


def _matching(word: str) -> Select[Any]:
    """Images with a label that has words beginning so."""
    tokens = " ".join(f'"{token}"*' for token in _WORD.findall(word))
    if not tokens:
        return select(images.c.id).where(literal(0) == 1)
    found = text("SELECT rowid AS id FROM image_text WHERE image_text MATCH :tokens").bindparams(
        tokens=tokens
    )
    return select(found.columns(id=Integer).subquery().c.id)


def _sources(
    connection: Connection, places: set[tuple[str, str, str]]
) -> dict[tuple[str, str, str], tuple[str, ...]]:
    """The source repositories by rule, destination and the repository that they lead to."""
    found: dict[tuple[str, str, str], list[str]] = {}
    rows = connection.execute(
        select(_rule.c.name, _destination.c.name, units.c.target, _repository.c.name)
        .join(_rule, _rule.c.id == units.c.rule)
        .join(_destination, _destination.c.id == units.c.destination)
        .join(_repository, _repository.c.id == units.c.repository)
        .where(units.c.target.in_({place[2] for place in places}))
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
