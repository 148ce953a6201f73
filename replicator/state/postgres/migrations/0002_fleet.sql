CREATE TABLE fleet_agents (
    name TEXT COLLATE "C" PRIMARY KEY,
    version TEXT NOT NULL,
    serves TEXT[],
    sites TEXT[] NOT NULL DEFAULT '{}',
    heartbeat TIMESTAMPTZ NOT NULL,
    started TIMESTAMPTZ NOT NULL,
    draining BOOLEAN NOT NULL DEFAULT false,
    doing JSONB NOT NULL DEFAULT '[]',
    clock_skew FLOAT NOT NULL DEFAULT 0
);

CREATE TABLE fleet_looks (
    rule TEXT COLLATE "C" NOT NULL,
    tick BIGINT NOT NULL,
    source TEXT NOT NULL,
    destinations TEXT[] NOT NULL,
    cause TEXT NOT NULL,
    shards INTEGER NOT NULL,
    remaining INTEGER NOT NULL,
    at TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (rule, tick)
);

CREATE TABLE fleet_pieces (
    rule TEXT COLLATE "C" NOT NULL,
    tick BIGINT NOT NULL,
    agent TEXT NOT NULL,
    report JSONB NOT NULL,
    at TIMESTAMPTZ NOT NULL DEFAULT now()
);
CREATE INDEX fleet_pieces_look ON fleet_pieces (rule, tick);

CREATE TABLE fleet_runs (
    number BIGSERIAL PRIMARY KEY,
    run JSONB NOT NULL,
    report JSONB
);
CREATE INDEX fleet_runs_id ON fleet_runs ((run->>'id'));

CREATE TABLE fleet_facts (
    site TEXT COLLATE "C" NOT NULL,
    key TEXT COLLATE "C" NOT NULL,
    value JSONB NOT NULL,
    at TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (site, key)
);
