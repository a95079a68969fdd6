-- When the source of a published job is deleted, where that was asked for; nothing once it is, or is kept after all.
ALTER TABLE jobs ADD COLUMN source_due_ms BIGINT;

CREATE INDEX jobs_sources ON jobs (source_due_ms);
