-- How a group is cut into sub-groups; null where it never was.
ALTER TABLE shoal.groups ADD COLUMN IF NOT EXISTS layout bytea;
