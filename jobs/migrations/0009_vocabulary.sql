-- Renames tables, columns and stored names to the terms of docs/glossary.md. The statements run on SQLite and
-- on PostgreSQL.

ALTER TABLE claims RENAME TO leases;
ALTER TABLE leases RENAME COLUMN fence TO fencing_token;
ALTER TABLE leases RENAME COLUMN claimed_ms TO leased_ms;
ALTER TABLE leases RENAME COLUMN told TO events_written;

ALTER TABLE jobs RENAME COLUMN fence TO fencing_token;
ALTER TABLE jobs RENAME COLUMN confines TO path_policy;

ALTER TABLE job_rows RENAME COLUMN number TO ordinal;
ALTER TABLE attempts RENAME COLUMN number TO ordinal;
ALTER TABLE attempts RENAME COLUMN fence TO fencing_token;

ALTER TABLE uploads RENAME COLUMN fence TO fencing_token;
ALTER TABLE uploads RENAME COLUMN pieces TO parts;
ALTER TABLE uploads RENAME COLUMN confines TO path_policy;
ALTER TABLE upload_tokens RENAME COLUMN most_bytes TO max_bytes;

ALTER TABLE deliveries RENAME COLUMN fence TO fencing_token;
ALTER TABLE deliveries RENAME COLUMN trouble TO last_error;
DROP INDEX deliveries_held;
CREATE INDEX deliveries_leased ON deliveries (lease_until_ms);

ALTER TABLE watches RENAME COLUMN list_every_ms TO scan_interval_ms;
ALTER TABLE watches RENAME COLUMN list_due_ms TO scan_due_ms;
ALTER TABLE watches RENAME COLUMN looked_ms TO scanned_ms;
ALTER TABLE watches RENAME COLUMN trouble TO last_error;

ALTER TABLE videos RENAME COLUMN unswept_ms TO gc_pending_ms;
DROP INDEX videos_unswept;
CREATE INDEX videos_gc_pending ON videos (gc_pending_ms);

UPDATE events SET kind = 'job.retry_scheduled' WHERE kind = 'job.again';
UPDATE events SET kind = 'row.retried' WHERE kind = 'row.again';

-- Field names inside JSON. Quotes within a JSON string are escaped, so `"name":` is always the name of a
-- field.
UPDATE events SET data = REPLACE(data, '"row":', '"ordinal":') WHERE kind IN ('row.finished', 'row.retried');
UPDATE jobs SET request = REPLACE(request, '"live":', '"early_playback":');
UPDATE uploads SET request = REPLACE(request, '"live":', '"early_playback":');
UPDATE watches SET job = REPLACE(job, '"live":', '"early_playback":');
UPDATE upload_tokens SET job = REPLACE(job, '"live":', '"early_playback":');
UPDATE jobs SET path_policy = REPLACE(REPLACE(REPLACE(path_policy,
    '"sources":', '"read":'), '"destinations":', '"write":'), '"own":', '"delete":');
UPDATE uploads SET path_policy = REPLACE(REPLACE(REPLACE(path_policy,
    '"sources":', '"read":'), '"destinations":', '"write":'), '"own":', '"delete":');
