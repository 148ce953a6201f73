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
    remaining INTEGER NOT NULL,
    results JSONB NOT NULL DEFAULT '[]',
    at TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (rule, tick)
);

CREATE TABLE fleet_facts (
    site TEXT COLLATE "C" NOT NULL,
    key TEXT COLLATE "C" NOT NULL,
    value JSONB NOT NULL,
    at TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (site, key)
);
