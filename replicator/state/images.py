"""What is written of images, so that `search` finds them: facts, layers, the words of labels, and moves of tags."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, delete, except_, insert, select, text

from replicator.model.digest import Digest, encoded
from replicator.ports.search import MAX_TEXT, ImageFacts
from replicator.state.dialect import ADD_WORDS, DROP_WORDS, tokens
from replicator.state.merge import storable
from replicator.state.reading import pieces
from replicator.state.tables import beliefs, image_layers, images

MOVES_KEPT: Final = 20
"""Of one tag."""
_LARGEST: Final = 2**63 - 1

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
    labels, annotations = _texts(facts)
    return {
        "digest": facts.digest,
        "created": facts.created,
        "artifact_type": storable(facts.artifact_type),
        "platforms": storable(f" {' '.join(facts.platforms)} "),
        "labels": msgspec.json.encode(labels).decode(),
        "annotations": msgspec.json.encode(annotations).decode(),
        "size": min(facts.size, _LARGEST),
    }


def _write_details(connection: Connection, new: Mapping[Digest, ImageFacts]) -> None:
    """Layers and words of images that were just inserted."""
    layers, texts = [], []
    rows = connection.execute(select(images.c.id, images.c.digest).where(images.c.digest.in_(new)))
    for number, digest in rows:
        facts = new[digest]
        layers += [
            {"layer": bytes.fromhex(encoded(layer)), "image": number, "size": min(size, _LARGEST)}
            for layer, size in facts.layers
        ]
        if words := words_of(*_texts(facts)):
            texts.append({"id": number, "text": words})
    if layers:
        connection.execute(_NEW_LAYER, layers)
    if texts:
        connection.execute(ADD_WORDS[connection.dialect.name], texts)


def words_of(labels: Mapping[str, str], annotations: Mapping[str, str]) -> str:
    """What free text finds; a value that is both a label and an annotation counts once."""
    return " ".join(tokens(" ".join(dict.fromkeys([*labels.values(), *annotations.values()]))))


def drop_unused(connection: Connection) -> None:
    """Throws away what is known of images that no tag names any more."""
    # As sets: no index begins with the digest of a belief, and SQLite would walk through all of them for each image.
    unused = images.c.digest.in_(except_(select(images.c.digest), select(beliefs.c.digest)))
    gone = [row[0] for row in connection.execute(select(images.c.id).where(unused))]
    for number in gone:
        columns = select(images.c.labels, images.c.annotations).where(images.c.id == number)
        labels, annotations = connection.execute(columns).one()
        if words := words_of(msgspec.json.decode(labels), msgspec.json.decode(annotations)):
            connection.execute(DROP_WORDS[connection.dialect.name], {"id": number, "text": words})
        connection.execute(delete(image_layers).where(image_layers.c.image == number))
        connection.execute(delete(images).where(images.c.id == number))


def _texts(facts: ImageFacts) -> tuple[dict[str, str], dict[str, str]]:
    """Labels and annotations as far as `MAX_TEXT` goes for both together; annotations may have half of it."""
    annotations = _bounded(facts.annotations, MAX_TEXT // 2)
    used = sum(len(key) + len(value) for key, value in annotations.items())
    return _bounded(facts.labels, MAX_TEXT - used), annotations


def _bounded(texts: Mapping[str, str], left: int) -> dict[str, str]:
    """The texts up to a number of characters, descriptions before the rest."""
    kept: dict[str, str] = {}
    for key in sorted(
        texts, key=lambda key: (not key.endswith(("description", "title", "source", "version")), key)
    ):
        if len(key) >= left:
            break
        kept[storable(key)] = text = storable(texts[key][: left - len(key)])
        left -= len(key) + len(text)
    return kept
