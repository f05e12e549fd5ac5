-- Tasks on their way through a scheduler: one row for each agent that is started for a task.
CREATE TABLE launches (
  task TEXT NOT NULL, attempt BIGINT NOT NULL,
  -- The fence that the task has once this agent has taken it.
  fence BIGINT NOT NULL,
  -- The launch token's hash, and the processor's key that its text derives from.
  token TEXT NOT NULL, key_name TEXT NOT NULL,
  -- The scheduler's job for the class; the one that was dispatched, once that is known, and at which index.
  parent TEXT NOT NULL, job TEXT, job_index BIGINT NOT NULL,
  -- The client that has it, and whether that one is being drained.
  client TEXT, drained BIGINT NOT NULL,
  -- Why it waits, for people.
  note TEXT,
  -- 1: nobody waits for this agent any more.
  closed BIGINT NOT NULL,
  PRIMARY KEY (task, attempt)
);

-- One row: by this name a scheduler's jobs are known as this database's.
CREATE TABLE fleet (one BIGINT PRIMARY KEY, id TEXT NOT NULL);
