CREATE TABLE beliefs (
    destination INTEGER NOT NULL,
    repository INTEGER NOT NULL,
    tag TEXT COLLATE "C" NOT NULL,
    digest BYTEA NOT NULL,
    source_digest BYTEA NOT NULL,
    rule INTEGER NOT NULL,
    checked_at FLOAT NOT NULL,
    asked_at FLOAT NOT NULL,
    companions TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (destination, repository, tag)
);
CREATE INDEX beliefs_by_digest ON beliefs (destination, repository, digest);

CREATE TABLE created (
    digest BYTEA NOT NULL,
    at FLOAT NOT NULL,
    used_at FLOAT NOT NULL,
    PRIMARY KEY (digest)
);

CREATE TABLE events (
    site TEXT COLLATE "C" NOT NULL,
    repository TEXT COLLATE "C" NOT NULL,
    tag TEXT COLLATE "C" NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    digest TEXT COLLATE "C",
    at FLOAT NOT NULL,
    accepted_at FLOAT NOT NULL,
    PRIMARY KEY (site, repository, tag)
);
CREATE UNIQUE INDEX events_by_id ON events (id);

CREATE TABLE image_layers (
    layer BYTEA NOT NULL,
    image INTEGER NOT NULL,
    size BIGINT NOT NULL,
    PRIMARY KEY (layer, image)
);
CREATE INDEX layers_by_image ON image_layers (image);

CREATE TABLE images (
    id SERIAL NOT NULL,
    digest BYTEA NOT NULL,
    created FLOAT,
    artifact_type TEXT COLLATE "C" NOT NULL,
    platforms TEXT COLLATE "C" NOT NULL,
    labels TEXT COLLATE "C" NOT NULL,
    annotations TEXT COLLATE "C" NOT NULL,
    size BIGINT NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (digest)
);

CREATE TABLE listed (
    site INTEGER NOT NULL,
    repository INTEGER NOT NULL,
    tag TEXT COLLATE "C" NOT NULL,
    digest BYTEA NOT NULL,
    version TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (site, repository, tag)
);

CREATE TABLE moves (
    destination INTEGER NOT NULL,
    repository INTEGER NOT NULL,
    tag TEXT COLLATE "C" NOT NULL,
    at FLOAT NOT NULL,
    digest BYTEA NOT NULL,
    PRIMARY KEY (destination, repository, tag, at)
);

CREATE TABLE names (
    id SERIAL NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (name)
);

CREATE TABLE paused (
    rule TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (rule)
);

CREATE TABLE pending (
    rule INTEGER NOT NULL,
    destination INTEGER NOT NULL,
    repository INTEGER NOT NULL,
    tag TEXT COLLATE "C" NOT NULL,
    digest BYTEA,
    since FLOAT NOT NULL,
    attempts INTEGER NOT NULL,
    error TEXT COLLATE "C" NOT NULL,
    reason TEXT COLLATE "C" NOT NULL,
    not_before FLOAT NOT NULL,
    source TEXT COLLATE "C" NOT NULL,
    asked_at FLOAT NOT NULL,
    hold TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (rule, destination, repository, tag)
);

CREATE TABLE placements (
    destination INTEGER NOT NULL,
    repository INTEGER NOT NULL,
    digest BYTEA NOT NULL,
    fingerprint TEXT COLLATE "C" NOT NULL,
    written_at FLOAT NOT NULL,
    verified_at FLOAT NOT NULL,
    PRIMARY KEY (destination, repository, digest)
);

CREATE TABLE refusals (
    site INTEGER NOT NULL,
    repository TEXT COLLATE "C" NOT NULL,
    at FLOAT NOT NULL,
    cause TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (site, repository)
);

CREATE TABLE repositories (
    site INTEGER NOT NULL,
    repository INTEGER NOT NULL,
    PRIMARY KEY (site, repository)
);

CREATE TABLE shards (
    rule INTEGER NOT NULL,
    destination INTEGER NOT NULL,
    of INTEGER NOT NULL,
    shard INTEGER NOT NULL,
    catalog_at FLOAT,
    ended_at FLOAT NOT NULL,
    is_ok BOOLEAN NOT NULL,
    error TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (rule, destination, of, shard)
);

CREATE TABLE runs (
    rule INTEGER NOT NULL,
    destination INTEGER NOT NULL,
    started_at FLOAT NOT NULL,
    ended_at FLOAT NOT NULL,
    outcome TEXT COLLATE "C" NOT NULL,
    complete_look BOOLEAN NOT NULL,
    in_step INTEGER NOT NULL,
    held INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    error TEXT COLLATE "C" NOT NULL,
    narrowed BOOLEAN NOT NULL,
    PRIMARY KEY (rule, destination, started_at)
);

CREATE TABLE standings (
    rule INTEGER NOT NULL,
    destination INTEGER NOT NULL,
    first_seen FLOAT NOT NULL,
    catalog_at FLOAT,
    last_look FLOAT,
    last_success FLOAT,
    in_step INTEGER NOT NULL,
    held INTEGER NOT NULL,
    last_error TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (rule, destination)
);

CREATE TABLE swept (
    what TEXT COLLATE "C" NOT NULL,
    at FLOAT NOT NULL,
    PRIMARY KEY (what)
);

CREATE TABLE told (
    receiver TEXT COLLATE "C" NOT NULL,
    rule TEXT COLLATE "C" NOT NULL,
    destination TEXT COLLATE "C" NOT NULL,
    condition TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (receiver, rule, destination, condition)
);

CREATE TABLE units (
    rule INTEGER NOT NULL,
    destination INTEGER NOT NULL,
    repository INTEGER NOT NULL,
    target TEXT COLLATE "C" NOT NULL,
    source_complete_at FLOAT,
    destination_complete_at FLOAT,
    in_step INTEGER NOT NULL,
    held INTEGER NOT NULL,
    unknown INTEGER NOT NULL,
    error TEXT COLLATE "C" NOT NULL,
    asked_at FLOAT NOT NULL,
    PRIMARY KEY (rule, destination, repository)
);

CREATE TABLE whereabouts (
    site INTEGER NOT NULL,
    digest BYTEA NOT NULL,
    repository INTEGER NOT NULL,
    seen_at FLOAT NOT NULL,
    PRIMARY KEY (site, digest, repository)
);

CREATE TABLE image_text (
    id INTEGER NOT NULL,
    words TSVECTOR NOT NULL,
    PRIMARY KEY (id)
);
CREATE INDEX image_text_words ON image_text USING gin (words);

-- Every tag is confirmed once a day: room for its new row beside the old one, and no waiting for a fifth of all rows to change.
ALTER TABLE beliefs SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);
ALTER TABLE placements SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02);
ALTER TABLE units SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02);
