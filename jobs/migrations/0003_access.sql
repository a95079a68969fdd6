-- What a tenant may do, as JSON; whatever it likes where there is none.
ALTER TABLE tenants ADD COLUMN policy TEXT;

-- The places that a job may touch, as JSON; any where there is none.
ALTER TABLE jobs ADD COLUMN confines TEXT;
ALTER TABLE uploads ADD COLUMN confines TEXT;

CREATE TABLE api_keys (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL REFERENCES tenants (id),
    name TEXT NOT NULL,
    -- Of what whoever has it shows: that itself is nowhere.
    hash TEXT NOT NULL,
    -- Words with blanks between.
    scopes TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    expires_ms BIGINT,
    revoked_ms BIGINT,
    -- To the minute.
    used_ms BIGINT
);

CREATE INDEX api_keys_of_tenant ON api_keys (tenant, id);

-- Each is good for one upload, by somebody who has no key.
CREATE TABLE upload_tokens (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL REFERENCES tenants (id),
    hash TEXT NOT NULL,
    most_bytes BIGINT NOT NULL,
    -- The document of the job that is made of it.
    job TEXT,
    created_ms BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL,
    upload TEXT
);

-- What several servers sign with, so that each knows the others' signatures.
CREATE TABLE secrets (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
);
