-- Why nobody would take it, as its pipeline's readers were told last.
ALTER TABLE tasks ADD COLUMN waits TEXT;
