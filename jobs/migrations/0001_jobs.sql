-- Every number is a BIGINT and everything else a TEXT, so that the same statements work in SQLite and in PostgreSQL. Times are
-- milliseconds since 1970 by the database's own clock.

CREATE TABLE tenants (
    id TEXT PRIMARY KEY,
    -- When a job of it was claimed last: among equals the one that waited longest is next.
    served_ms BIGINT NOT NULL
);

CREATE TABLE videos (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL REFERENCES tenants (id),
    name TEXT NOT NULL,
    source TEXT NOT NULL,
    destination TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    -- What publishing returned, as JSON; the newest.
    published TEXT,
    published_ms BIGINT
);

CREATE INDEX videos_of_tenant ON videos (tenant, id);

CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL REFERENCES tenants (id),
    video TEXT REFERENCES videos (id),
    -- What was asked for, as JSON.
    request TEXT NOT NULL,
    priority BIGINT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'processing', 'published', 'failed', 'canceled')),
    phase TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    -- It is not begun before.
    due_ms BIGINT NOT NULL,
    started_ms BIGINT,
    ended_ms BIGINT,
    -- How often it was begun since somebody asked for it.
    tries BIGINT NOT NULL,
    -- Grows with each claim: whoever holds an older number may not write.
    fence BIGINT NOT NULL,
    dispatcher TEXT,
    lease_until_ms BIGINT,
    cancel_requested BIGINT NOT NULL,
    rows_total BIGINT NOT NULL,
    rows_done BIGINT NOT NULL,
    media_ms BIGINT NOT NULL,
    media_done_ms BIGINT NOT NULL,
    result TEXT,
    error_kind TEXT,
    error TEXT,
    -- Number of its last event.
    events BIGINT NOT NULL
);

CREATE INDEX jobs_next ON jobs (tenant, state, priority DESC, id);
CREATE INDEX jobs_leases ON jobs (state, lease_until_ms);
CREATE INDEX jobs_of_tenant ON jobs (tenant, id);

-- A request that is sent twice makes one job.
CREATE TABLE idempotency (
    tenant TEXT NOT NULL,
    key TEXT NOT NULL,
    -- Of the request, so that a key that is used for two different ones can be refused.
    hash TEXT NOT NULL,
    job TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    PRIMARY KEY (tenant, key)
);

-- Who held a job, and how that ended.
CREATE TABLE claims (
    job TEXT NOT NULL REFERENCES jobs (id),
    fence BIGINT NOT NULL,
    dispatcher TEXT NOT NULL,
    claimed_ms BIGINT NOT NULL,
    ended_ms BIGINT,
    outcome TEXT,
    PRIMARY KEY (job, fence)
);

CREATE TABLE job_rows (
    job TEXT NOT NULL REFERENCES jobs (id),
    number BIGINT NOT NULL,
    track TEXT NOT NULL,
    track_index BIGINT NOT NULL,
    first_frame BIGINT NOT NULL,
    frames BIGINT NOT NULL,
    start_ms BIGINT NOT NULL,
    duration_ms BIGINT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'running', 'done')),
    done_ms BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    encoded BIGINT NOT NULL,
    reused BIGINT NOT NULL,
    PRIMARY KEY (job, number)
);

-- Attempts at a row that failed, or were given up for another.
CREATE TABLE attempts (
    job TEXT NOT NULL,
    number BIGINT NOT NULL,
    fence BIGINT NOT NULL,
    attempt BIGINT NOT NULL,
    at_ms BIGINT NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (job, number, fence, attempt),
    FOREIGN KEY (job, number) REFERENCES job_rows (job, number)
);

CREATE TABLE events (
    job TEXT NOT NULL REFERENCES jobs (id),
    -- 1, 2, 3, … of each job.
    sequence BIGINT NOT NULL,
    at_ms BIGINT NOT NULL,
    kind TEXT NOT NULL,
    -- What there is to say of it, as JSON.
    data TEXT NOT NULL,
    PRIMARY KEY (job, sequence)
);
