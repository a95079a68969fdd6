-- Where files arrive that jobs are made of.
CREATE TABLE watches (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL REFERENCES tenants (id),
    -- What lies in it is taken.
    prefix TEXT NOT NULL,
    -- What is made of it: the document of a job, without its source.
    job TEXT NOT NULL,
    -- A queue of Amazon's that tells of what arrives.
    queue TEXT,
    -- How often it is looked for what has arrived, where nobody tells, and when next.
    list_every_ms BIGINT,
    list_due_ms BIGINT,
    created_ms BIGINT NOT NULL,
    -- When it was looked last, and what kept it from being seen.
    looked_ms BIGINT,
    trouble TEXT
);

CREATE INDEX watches_of_tenant ON watches (tenant, id);
CREATE INDEX watches_due ON watches (list_due_ms);
