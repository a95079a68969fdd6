-- Whom a tenant wants to be told of its jobs.
CREATE TABLE webhooks (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL REFERENCES tenants (id),
    url TEXT NOT NULL,
    -- What is sent is signed with it.
    secret TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    -- Nothing is sent from then on.
    disabled_ms BIGINT
);

CREATE INDEX webhooks_of_tenant ON webhooks (tenant, id);

-- What is to be sent: written by the change that it tells of.
CREATE TABLE deliveries (
    id TEXT PRIMARY KEY,
    webhook TEXT NOT NULL REFERENCES webhooks (id),
    job TEXT NOT NULL REFERENCES jobs (id),
    sequence BIGINT NOT NULL,
    at_ms BIGINT NOT NULL,
    kind TEXT NOT NULL,
    data TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'delivered', 'failed')),
    due_ms BIGINT NOT NULL,
    tries BIGINT NOT NULL,
    -- Grows with each try: whoever holds an older number may not write. Until then nobody else takes it.
    fence BIGINT NOT NULL,
    lease_until_ms BIGINT NOT NULL,
    ended_ms BIGINT,
    -- What was answered last, where it was not what is wanted.
    trouble TEXT
);

CREATE INDEX deliveries_due ON deliveries (state, due_ms);
CREATE INDEX deliveries_held ON deliveries (lease_until_ms);
CREATE INDEX deliveries_of_webhook ON deliveries (webhook, id);
