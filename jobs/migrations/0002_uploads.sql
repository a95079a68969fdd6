CREATE TABLE uploads (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL REFERENCES tenants (id),
    state TEXT NOT NULL CHECK (state IN ('open', 'finished', 'gone')),
    name TEXT NOT NULL,
    -- What the client says of it, as JSON.
    metadata TEXT NOT NULL,
    -- Where the object will be, and the store's name for what is not there yet.
    location TEXT NOT NULL,
    token TEXT NOT NULL,
    bytes BIGINT NOT NULL,
    received BIGINT NOT NULL,
    -- What the store gave for the pieces that it has, as JSON.
    pieces TEXT NOT NULL,
    -- Grows with each request that sends bytes: whoever holds an older number may not write. Until then nobody else takes it.
    fence BIGINT NOT NULL,
    lease_until_ms BIGINT NOT NULL,
    -- What is asked for once it is there, as JSON, and the job that was made of it.
    request TEXT,
    priority BIGINT NOT NULL,
    job TEXT REFERENCES jobs (id),
    created_ms BIGINT NOT NULL,
    updated_ms BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL
);

CREATE INDEX uploads_open ON uploads (state, expires_ms);
