-- Events that a claim has told: a report whose answer was lost is sent again, and is written down once.
ALTER TABLE claims ADD COLUMN told BIGINT NOT NULL DEFAULT 0;
