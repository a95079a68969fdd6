-- Since when there may be parts at a video's destination that nothing refers to; nothing once it was swept.
ALTER TABLE videos ADD COLUMN unswept_ms BIGINT;

CREATE INDEX videos_unswept ON videos (unswept_ms);
