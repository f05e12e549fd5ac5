CREATE TABLE projects (
  id TEXT PRIMARY KEY, slug TEXT NOT NULL UNIQUE, repository TEXT, created_ms BIGINT NOT NULL,
  -- Numbers given out so far.
  pipelines BIGINT NOT NULL, jobs BIGINT NOT NULL
);

CREATE TABLE pipelines (
  id TEXT PRIMARY KEY, project TEXT NOT NULL, number BIGINT NOT NULL, created_ms BIGINT NOT NULL,
  -- JSON of api::Submit, as it came.
  submit TEXT NOT NULL,
  -- The working tree that was sent with it.
  tree TEXT,
  -- JSON of what it compiled to.
  compiled TEXT NOT NULL,
  -- Trust scope of its jobs, as text.
  scope TEXT NOT NULL,
  -- JSON: jobs that count as passed; the pipeline whose workspaces it shares. For reruns.
  assumed TEXT NOT NULL, workspace_of TEXT NOT NULL,
  -- running, on_hold, and how it ended.
  state TEXT NOT NULL,
  -- How many there are of each.
  happenings BIGINT NOT NULL, events BIGINT NOT NULL,
  UNIQUE (project, number)
);
CREATE INDEX pipelines_by_tree ON pipelines (tree);

-- What happened to a pipeline's walk, in order: replayed, they are its state.
CREATE TABLE happenings (
  pipeline TEXT NOT NULL, number BIGINT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (pipeline, number)
);

-- What people see of a pipeline: JSON of docs/events.md.
CREATE TABLE events (
  pipeline TEXT NOT NULL, number BIGINT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (pipeline, number)
);

CREATE TABLE tasks (
  id TEXT PRIMARY KEY, pipeline TEXT NOT NULL,
  -- Its key in the walk.
  workflow BIGINT NOT NULL, job BIGINT NOT NULL, node BIGINT NOT NULL,
  number BIGINT NOT NULL, workflow_name TEXT NOT NULL, job_name TEXT NOT NULL,
  project TEXT NOT NULL, scope TEXT NOT NULL, workspace TEXT NOT NULL,
  class TEXT NOT NULL, millicpus BIGINT NOT NULL, memory BIGINT NOT NULL,
  -- Of tasks with one value here, one job's at a time run.
  serial TEXT,
  -- JSON of the claim, of the names of its contexts, and of the lines for its report.
  claim TEXT NOT NULL, contexts TEXT NOT NULL, notes TEXT NOT NULL,
  -- queued, claimed, ended.
  state TEXT NOT NULL, queued_ms BIGINT NOT NULL,
  -- Grows with each handing out; the fence of whoever had it before.
  handed BIGINT NOT NULL,
  -- 1: steps may have begun. It is never handed out again.
  begun BIGINT NOT NULL,
  -- Counts heartbeats: a lease is lost when this stands still.
  beats BIGINT NOT NULL,
  agent TEXT, cancel TEXT,
  -- Events taken from its agent so far.
  events BIGINT NOT NULL,
  -- JSON of the task's end; whether its output is whole.
  ended TEXT, output TEXT,
  UNIQUE (pipeline, workflow, job, node)
);
-- In the order in which a queue is served: of one class, and of any.
CREATE INDEX tasks_of_class ON tasks (state, class, queued_ms, id);
CREATE INDEX tasks_in_queue ON tasks (state, queued_ms, id);
CREATE INDEX tasks_by_serial ON tasks (serial, state);
CREATE INDEX tasks_by_number ON tasks (project, number);

CREATE TABLE segments (
  task TEXT NOT NULL, log TEXT NOT NULL, start BIGINT NOT NULL,
  length BIGINT NOT NULL, stored BIGINT NOT NULL, sha256 TEXT NOT NULL, object TEXT NOT NULL,
  PRIMARY KEY (task, log, start)
);

CREATE TABLE logs (
  task TEXT NOT NULL, log TEXT NOT NULL, durable BIGINT NOT NULL, bytes BIGINT, sha256 TEXT, PRIMARY KEY (task, log)
);

-- Hashes only.
CREATE TABLE tokens (
  hash TEXT PRIMARY KEY, name TEXT NOT NULL,
  -- admin, viewer, class, launch, task; and the class or task that it is for.
  kind TEXT NOT NULL, subject TEXT NOT NULL, fence BIGINT NOT NULL,
  created_ms BIGINT NOT NULL, used_ms BIGINT, revoked_ms BIGINT
);
CREATE INDEX tokens_by_subject ON tokens (kind, subject);

-- Sealed by a key of their own, which is sealed by the processor's.
CREATE TABLE secrets (
  -- context:NAME or project:ID.
  owner TEXT NOT NULL, name TEXT NOT NULL, created_ms BIGINT NOT NULL,
  key_name TEXT NOT NULL, wrapped BLOB NOT NULL, sealed BLOB NOT NULL,
  PRIMARY KEY (owner, name)
);

-- Lines of the audit log on their way to the store.
CREATE TABLE audit (id TEXT PRIMARY KEY, at_ms BIGINT NOT NULL, body TEXT NOT NULL);

-- Bodies of the store that a task may upload, and the place each is for (JSON).
CREATE TABLE reservations (
  body TEXT PRIMARY KEY, task TEXT NOT NULL, slot TEXT NOT NULL, reserved_ms BIGINT NOT NULL,
  -- open; sealed: it is being committed, or was; abandoned. It is written only while it is open.
  stage TEXT NOT NULL
);
CREATE INDEX reservations_by_task ON reservations (task);

-- Bodies that a task may read: it was shown an entry that names them.
CREATE TABLE shown (task TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (task, body));
