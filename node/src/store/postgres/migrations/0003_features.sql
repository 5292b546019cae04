-- What members of a group have been given by name; null where nothing ever was.
ALTER TABLE shoal.groups ADD COLUMN IF NOT EXISTS features bytea;
